//! The one table of functions: name, types of arguments and result. The parser checks calls against it, the engine
//! dispatches on [`Function`].

use crate::parse::ast::ValueType::{self, Matrix, Scalar, String, Vector};

/// What a function takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Name in a query.
    pub name: &'static str,
    /// Types of the arguments; the last one is that of all further arguments too.
    pub args: &'static [ValueType],
    /// Fewest arguments.
    pub args_min: usize,
    /// Most arguments; `None` has no bound but the query's length.
    pub args_max: Option<usize>,
    /// Type of the result.
    pub returns: ValueType,
    /// Accepted only with the experimental setting.
    pub experimental: bool,
}

/// Each line: variant, name, types of arguments, how many of them may be left out or repeated (`exact`;
/// `optional N`: the last may be missing or stand up to N times; `repeated`: the last any number of times),
/// type of the result, and `experimental` where it is.
macro_rules! functions {
    ($($variant:ident $name:literal [$($arg:ident)*] $kind:ident $($count:literal)? -> $returns:ident $($experimental:ident)?;)*) => {
        /// A function of PromQL.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Function {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Function {
            /// Every function.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What it takes and gives.
            pub fn signature(self) -> &'static Signature {
                match self {
                    $(Self::$variant => {
                        const ARGS: &[ValueType] = &[$($arg),*];
                        const SIGNATURE: Signature = Signature {
                            name: $name,
                            args: ARGS,
                            args_min: functions!(@min ARGS $kind),
                            args_max: functions!(@max ARGS $kind $($count)?),
                            returns: $returns,
                            experimental: functions!(@flag $($experimental)?),
                        };
                        &SIGNATURE
                    })*
                }
            }

            /// The function of that name; names are case-sensitive.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
    (@min $args:ident exact) => { $args.len() };
    (@min $args:ident $other:ident) => { $args.len() - 1 };
    (@max $args:ident exact) => { Some($args.len()) };
    (@max $args:ident optional $count:literal) => { Some($args.len() - 1 + $count) };
    (@max $args:ident repeated) => { None };
    (@flag) => { false };
    (@flag experimental) => { true };
}

functions! {
    Abs "abs" [Vector] exact -> Vector;
    Absent "absent" [Vector] exact -> Vector;
    AbsentOverTime "absent_over_time" [Matrix] exact -> Vector;
    Acos "acos" [Vector] exact -> Vector;
    Acosh "acosh" [Vector] exact -> Vector;
    Asin "asin" [Vector] exact -> Vector;
    Asinh "asinh" [Vector] exact -> Vector;
    Atan "atan" [Vector] exact -> Vector;
    Atanh "atanh" [Vector] exact -> Vector;
    AvgOverTime "avg_over_time" [Matrix] exact -> Vector;
    Ceil "ceil" [Vector] exact -> Vector;
    Changes "changes" [Matrix] exact -> Vector;
    Clamp "clamp" [Vector Scalar Scalar] exact -> Vector;
    ClampMax "clamp_max" [Vector Scalar] exact -> Vector;
    ClampMin "clamp_min" [Vector Scalar] exact -> Vector;
    Cos "cos" [Vector] exact -> Vector;
    Cosh "cosh" [Vector] exact -> Vector;
    CountOverTime "count_over_time" [Matrix] exact -> Vector;
    DayOfMonth "day_of_month" [Vector] optional 1 -> Vector;
    DayOfWeek "day_of_week" [Vector] optional 1 -> Vector;
    DayOfYear "day_of_year" [Vector] optional 1 -> Vector;
    DaysInMonth "days_in_month" [Vector] optional 1 -> Vector;
    Deg "deg" [Vector] exact -> Vector;
    Delta "delta" [Matrix] exact -> Vector;
    Deriv "deriv" [Matrix] exact -> Vector;
    DoubleExponentialSmoothing "double_exponential_smoothing" [Matrix Scalar Scalar] exact -> Vector experimental;
    End "end" [] exact -> Scalar experimental;
    Exp "exp" [Vector] exact -> Vector;
    FirstOverTime "first_over_time" [Matrix] exact -> Vector experimental;
    Floor "floor" [Vector] exact -> Vector;
    HistogramAvg "histogram_avg" [Vector] exact -> Vector;
    HistogramCount "histogram_count" [Vector] exact -> Vector;
    HistogramFraction "histogram_fraction" [Scalar Scalar Vector] exact -> Vector;
    HistogramQuantile "histogram_quantile" [Scalar Vector] exact -> Vector;
    HistogramQuantiles "histogram_quantiles" [Vector String Scalar Scalar] optional 9 -> Vector experimental;
    HistogramStddev "histogram_stddev" [Vector] exact -> Vector;
    HistogramStdvar "histogram_stdvar" [Vector] exact -> Vector;
    HistogramSum "histogram_sum" [Vector] exact -> Vector;
    Hour "hour" [Vector] optional 1 -> Vector;
    Idelta "idelta" [Matrix] exact -> Vector;
    Increase "increase" [Matrix] exact -> Vector;
    Info "info" [Vector Vector] optional 1 -> Vector experimental;
    Irate "irate" [Matrix] exact -> Vector;
    LabelJoin "label_join" [Vector String String String] repeated -> Vector;
    LabelReplace "label_replace" [Vector String String String String] exact -> Vector;
    LastOverTime "last_over_time" [Matrix] exact -> Vector;
    Ln "ln" [Vector] exact -> Vector;
    Log10 "log10" [Vector] exact -> Vector;
    Log2 "log2" [Vector] exact -> Vector;
    MadOverTime "mad_over_time" [Matrix] exact -> Vector experimental;
    MaxOf "max_of" [Scalar Scalar] exact -> Scalar experimental;
    MaxOverTime "max_over_time" [Matrix] exact -> Vector;
    MinOf "min_of" [Scalar Scalar] exact -> Scalar experimental;
    MinOverTime "min_over_time" [Matrix] exact -> Vector;
    Minute "minute" [Vector] optional 1 -> Vector;
    Month "month" [Vector] optional 1 -> Vector;
    Pi "pi" [] exact -> Scalar;
    PredictLinear "predict_linear" [Matrix Scalar] exact -> Vector;
    PresentOverTime "present_over_time" [Matrix] exact -> Vector;
    QuantileOverTime "quantile_over_time" [Scalar Matrix] exact -> Vector;
    Rad "rad" [Vector] exact -> Vector;
    Range "range" [] exact -> Scalar experimental;
    Rate "rate" [Matrix] exact -> Vector;
    Resets "resets" [Matrix] exact -> Vector;
    Round "round" [Vector Scalar] optional 1 -> Vector;
    ScalarOf "scalar" [Vector] exact -> Scalar;
    Sgn "sgn" [Vector] exact -> Vector;
    Sin "sin" [Vector] exact -> Vector;
    Sinh "sinh" [Vector] exact -> Vector;
    Sort "sort" [Vector] exact -> Vector;
    SortByLabel "sort_by_label" [Vector String] repeated -> Vector experimental;
    SortByLabelDesc "sort_by_label_desc" [Vector String] repeated -> Vector experimental;
    SortDesc "sort_desc" [Vector] exact -> Vector;
    Sqrt "sqrt" [Vector] exact -> Vector;
    Start "start" [] exact -> Scalar experimental;
    StartTimestamp "start_timestamp" [Vector] exact -> Vector experimental;
    StddevOverTime "stddev_over_time" [Matrix] exact -> Vector;
    Step "step" [] exact -> Scalar experimental;
    StdvarOverTime "stdvar_over_time" [Matrix] exact -> Vector;
    SumOverTime "sum_over_time" [Matrix] exact -> Vector;
    Tan "tan" [Vector] exact -> Vector;
    Tanh "tanh" [Vector] exact -> Vector;
    Time "time" [] exact -> Scalar;
    Timestamp "timestamp" [Vector] exact -> Vector;
    TsOfFirstOverTime "ts_of_first_over_time" [Matrix] exact -> Vector experimental;
    TsOfLastOverTime "ts_of_last_over_time" [Matrix] exact -> Vector experimental;
    TsOfMaxOverTime "ts_of_max_over_time" [Matrix] exact -> Vector experimental;
    TsOfMinOverTime "ts_of_min_over_time" [Matrix] exact -> Vector experimental;
    VectorOf "vector" [Scalar] exact -> Vector;
    Year "year" [Vector] optional 1 -> Vector;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_by_its_name() {
        for function in Function::ALL {
            assert_eq!(Function::from_name(function.signature().name), Some(*function));
        }
        assert_eq!(Function::from_name("RATE"), None);
    }

    #[test]
    fn bounds_on_arguments_are_those_of_prometheus() {
        let bounds = |f: Function| (f.signature().args_min, f.signature().args_max);
        assert_eq!(bounds(Function::Round), (1, Some(2)));
        assert_eq!(bounds(Function::LabelJoin), (3, None));
        assert_eq!(bounds(Function::HistogramQuantiles), (3, Some(12)));
        assert_eq!(bounds(Function::Pi), (0, Some(0)));
    }
}
