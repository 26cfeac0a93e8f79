//! Every function of numbers at the ends of what numbers there are.

/// Zeros, the least and the most that is finite, what isn't, and a few of those between.
const ARGUMENTS: [&str; 14] = [
    "0", "-0", "5e-324", "-5e-324", "1e-308", "0.5", "-1", "1", "1e200", "1e308", "-1e308", "Inf", "-Inf",
    "NaN",
];
const FUNCTIONS: [&str; 24] = [
    "abs", "ceil", "floor", "round", "sqrt", "exp", "ln", "log2", "log10", "sgn", "deg", "rad", "sin", "cos",
    "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh",
];
const OPERATORS: [&str; 13] =
    ["+", "-", "*", "/", "%", "^", "atan2", "== bool", "!= bool", "> bool", "< bool", ">= bool", "<= bool"];

/// Questions that need no data.
pub fn extremes() -> Vec<String> {
    let mut all = Vec::new();
    for a in ARGUMENTS {
        all.extend(FUNCTIONS.map(|function| format!("{function}(vector({a}))")));
        for b in ARGUMENTS {
            all.extend(OPERATORS.map(|op| format!("vector({a}) {op} vector({b})")));
            all.extend(["round", "clamp_min", "clamp_max"].map(|f| format!("{f}(vector({a}), {b})")));
            let both = format!(r#"(vector({a}) or label_replace(vector({b}), "b", "b", "", ""))"#);
            all.extend(["sum", "avg", "min", "max", "count"].map(|op| format!("{op}({both})")));
            all.extend([a, "0.5"].map(|phi| format!("quantile({phi}, {both})")));
            all.extend(ARGUMENTS.map(|c| format!("clamp(vector({a}), {b}, {c})")));
        }
    }
    all
}
