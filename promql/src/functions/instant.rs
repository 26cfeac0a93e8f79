//! Functions of a single float, and parts of dates.

use crate::functions::Function;
use crate::plan::Date;

/// Functions from float to float.
#[derive(Clone, Copy, Debug)]
pub struct FloatFunction(pub fn(f64) -> f64);

impl FloatFunction {
    /// The float function that a PromQL function is, if it is one.
    pub fn from_function(function: Function) -> Option<Self> {
        Some(Self(match function {
            Function::Abs => f64::abs,
            Function::Acos => f64::acos,
            Function::Acosh => acosh,
            Function::Asin => f64::asin,
            Function::Asinh => asinh,
            Function::Atan => f64::atan,
            Function::Atanh => f64::atanh,
            Function::Ceil => f64::ceil,
            Function::Cos => f64::cos,
            Function::Cosh => f64::cosh,
            Function::Deg => degrees,
            Function::Exp => f64::exp,
            Function::Floor => f64::floor,
            Function::Ln => f64::ln,
            Function::Log10 => f64::log10,
            Function::Log2 => f64::log2,
            Function::Rad => radians,
            Function::Sgn => sign,
            Function::Sin => f64::sin,
            Function::Sinh => f64::sinh,
            Function::Sqrt => f64::sqrt,
            Function::Tan => f64::tan,
            Function::Tanh => f64::tanh,
            _ => return None,
        }))
    }
}

/// From here on a number's square is all that counts of `√(x² ± 1)`, and twice the number may be more than there is:
/// `acosh` and `asinh` are then the logarithm of twice the number.
const LARGE: f64 = (1u64 << 28) as f64;

fn asinh(value: f64) -> f64 {
    if value.abs() > LARGE { logarithm_of_twice(value.abs()).copysign(value) } else { value.asinh() }
}

fn acosh(value: f64) -> f64 {
    if value > LARGE { logarithm_of_twice(value) } else { value.acosh() }
}

fn logarithm_of_twice(value: f64) -> f64 {
    value.ln() + std::f64::consts::LN_2
}

/// In Prometheus's order: what is multiplied first may overflow, and what is divided first rounds otherwise.
fn degrees(value: f64) -> f64 {
    value * 180.0 / std::f64::consts::PI
}

/// As [`degrees`].
fn radians(value: f64) -> f64 {
    value * std::f64::consts::PI / 180.0
}

/// -1 or 1; zeros and NaN stay what they are.
fn sign(value: f64) -> f64 {
    if value < 0.0 {
        -1.0
    } else if value > 0.0 {
        1.0
    } else {
        value
    }
}

/// `round(value, nearest)`: halves go up.
pub fn round(value: f64, nearest: f64) -> f64 {
    // Dividing by the inverse keeps decimal fractions exact where they can be: 1/0.1 is 10.
    let inverse = 1.0 / nearest;
    (value * inverse + 0.5).floor() / inverse
}

/// The part of a date that a PromQL function gives, if it gives one.
pub(crate) fn date_part(function: Function) -> Option<Date> {
    Some(match function {
        Function::Minute => Date::Minute,
        Function::Hour => Date::Hour,
        Function::DayOfWeek => Date::DayOfWeek,
        Function::DayOfMonth => Date::DayOfMonth,
        Function::DayOfYear => Date::DayOfYear,
        Function::DaysInMonth => Date::DaysInMonth,
        Function::Month => Date::Month,
        Function::Year => Date::Year,
        _ => return None,
    })
}

const DAY_S: i64 = 86_400;

impl Date {
    /// This part of the date `seconds` after the Unix epoch, in UTC. Fractions of a second are cut off.
    pub(crate) fn of(self, seconds: f64) -> f64 {
        let seconds = seconds as i64;
        let days = seconds.div_euclid(DAY_S);
        let second_of_day = seconds.rem_euclid(DAY_S);
        let (year, month, day) = civil(days);
        let part = match self {
            Self::Minute => second_of_day % 3600 / 60,
            Self::Hour => second_of_day / 3600,
            // The epoch was a Thursday; Sunday is 0.
            Self::DayOfWeek => (days + 4).rem_euclid(7),
            Self::DayOfMonth => day,
            Self::DayOfYear => days - days_from_civil(year, 1, 1) + 1,
            Self::DaysInMonth => {
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                days_from_civil(next.0, next.1, 1) - days_from_civil(year, month, 1)
            }
            Self::Month => month,
            Self::Year => year,
        };
        part as f64
    }
}

/// Days in 400 Gregorian years.
const ERA_DAYS: i64 = 146_097;
/// From 1 March of the year 0 to the Unix epoch.
const EPOCH_DAYS: i64 = 719_468;

/// Year, month and day in the proleptic Gregorian calendar of a day counted from the Unix epoch. Years are taken to
/// begin in March, so that the leap day is a year's last (Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(EPOCH_DAYS);
    let era = days.div_euclid(ERA_DAYS);
    let day_of_era = days.rem_euclid(ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let march_month = (month + 9) % 12;
    let day_of_year = (153 * march_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_DAYS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date, expected) in [
            (1_136_239_445.0, Date::Year, 2006.0),
            (1_136_239_445.0, Date::Hour, 22.0),
            (1_230_767_999.0, Date::Year, 2008.0),
            (1_230_768_000.0, Date::Year, 2009.0),
            (1_456_790_399.0, Date::DayOfMonth, 29.0),
            (1_672_493_820.0, Date::DayOfYear, 365.0),
            (1_454_284_800.0, Date::DaysInMonth, 29.0),
            (0.0, Date::DayOfWeek, 4.0),
            (-1.0, Date::Year, 1969.0),
            (-1.0, Date::Minute, 59.0),
        ] {
            assert_eq!(date.of(seconds), expected, "{date:?} of {seconds}");
        }
    }

    #[test]
    fn the_greatest_and_least_floats_have_the_values_that_go_gives_them() {
        let of = |function: Function, value: f64| (FloatFunction::from_function(function).unwrap().0)(value);
        for (function, value, expected) in [
            (Function::Deg, 1e308, f64::INFINITY),
            (Function::Rad, 1e308, f64::INFINITY),
            (Function::Rad, 180.0, std::f64::consts::PI),
            (Function::Asinh, 1e308, 709.889_355_822_726),
            (Function::Asinh, -f64::MAX, -710.475_860_073_943_9),
            (Function::Asinh, f64::NEG_INFINITY, f64::NEG_INFINITY),
            (Function::Acosh, f64::MAX, 710.475_860_073_943_9),
            (Function::Acosh, f64::INFINITY, f64::INFINITY),
            (Function::Acosh, 1.0, 0.0),
        ] {
            assert_eq!(of(function, value), expected, "{function:?} of {value}");
        }
        assert!(of(Function::Acosh, 0.5).is_nan() && of(Function::Asinh, f64::NAN).is_nan());
        assert_eq!(of(Function::Asinh, -0.0).to_bits(), (-0.0f64).to_bits());
    }

    #[test]
    fn halves_round_up() {
        assert_eq!(round(-0.5, 1.0), 0.0);
        assert_eq!(round(2.5, 1.0), 3.0);
        assert_eq!(round(-5.3, 0.1), -5.3);
        assert_eq!(round(7.5, 5.0), 10.0);
    }

    #[test]
    fn hostile_times_have_some_date() {
        for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert!(Date::Year.of(seconds).is_finite());
        }
    }
}
