//! Numbers between bounds, digit by digit.

use super::notation::any_of;

/// Digits after the point, at most.
const FRACTION: &str = "(\".\" [0-9]{1,16})?";

/// Whole numbers from `low` to `high`; `None` when there is none.
pub(super) fn integers(low: i128, high: i128) -> Option<String> {
    let mut alternatives = Vec::new();
    if low < 0 {
        let (least, most) = (u128::max(1, u128::try_from(-high).unwrap_or(0)), low.unsigned_abs());
        alternatives.extend((least <= most).then(|| format!("\"-\" {}", digits(least, most))));
    }
    if high >= 0 {
        let (least, most) = (u128::try_from(low).unwrap_or(0), high.unsigned_abs());
        alternatives.extend((least <= most).then(|| digits(least, most)));
    }
    (!alternatives.is_empty()).then(|| any_of(alternatives))
}

/// Numbers between bounds, of which only those count that are given. Not all of them: the whole ones, and those with digits
/// after the point that lie between two whole numbers within the bounds. `None` when there is none.
pub(super) fn numbers(low: Option<f64>, high: Option<f64>) -> Option<String> {
    /// Up to here digits after the point make a difference. Where no bound is given, it is one.
    const NEAR: f64 = 1e15;
    /// Farther off than anything that is measured, and few enough digits.
    const FARTHEST: f64 = 1e30;
    let low = low.unwrap_or_else(|| high.map_or(-NEAR, |high| if high < -NEAR { high * 2.0 } else { -NEAR }));
    let high = high.unwrap_or(if low > NEAR { low * 2.0 } else { NEAR });
    let (low, high) = (low.max(-FARTHEST), high.min(FARTHEST));
    if low > high {
        return None;
    }
    let near = NEAR as i128;
    let (first, last) = (low.ceil() as i128, high.floor() as i128);
    let mut alternatives = Vec::new();
    // Between two whole numbers: n.5 lies between n and n + 1, -n.5 between -n - 1 and -n.
    alternatives.extend(integers(first.max(0), (last - 1).min(near)).map(|whole| format!("{whole} {FRACTION}")));
    let (least, most) = ((-last).max(0), (-first - 1).min(near));
    if least <= most {
        let magnitudes = integers(least, most)?;
        alternatives.push(format!("\"-\" {magnitudes} {FRACTION}"));
    }
    // The bounds themselves, which nothing may follow, and what is far off.
    alternatives.extend(integers(first, first).filter(|_| first <= last && first < 0 || first == last));
    alternatives.extend(integers(last, last).filter(|_| first < last && last >= 0));
    alternatives.extend(integers(first.max(near + 1), last - 1));
    alternatives.extend(integers(first + 1, last.min(-near - 1)));
    (!alternatives.is_empty()).then(|| any_of(alternatives))
}

/// Decimal digits, without leading zeros, of the numbers from `low` to `high`.
fn digits(low: u128, high: u128) -> String {
    let mut alternatives = Vec::new();
    let (shortest, longest) = (low.to_string().len(), high.to_string().len());
    for length in shortest..=longest {
        let least = if length == shortest { low } else { 10_u128.pow(length as u32 - 1) };
        let most = if length == longest { high } else { 10_u128.pow(length as u32) - 1 };
        alternatives.push(of_one_length(&least.to_string(), &most.to_string()));
    }
    any_of(alternatives)
}

/// Digits from `low` to `high`, which have the same length.
fn of_one_length(low: &str, high: &str) -> String {
    let (Some(first), Some(last)) = (low.chars().next(), high.chars().next()) else { return "\"\"".to_owned() };
    let (low_rest, high_rest) = (&low[1..], &high[1..]);
    let length = low_rest.len();
    let (zeros, nines) = ("0".repeat(length), "9".repeat(length));
    let range = |from: char, to: char| if from == to { format!("\"{from}\"") } else { format!("[{from}-{to}]") };
    let then = |digit: String, rest: String| if length == 0 { digit } else { format!("{digit} {rest}") };
    if first == last {
        return then(range(first, last), of_one_length(low_rest, high_rest));
    }
    let all = || match length {
        1 => "[0-9]".to_owned(),
        _ => format!("[0-9]{{{length}}}"),
    };
    let mut alternatives = Vec::new();
    let (mut from, mut to) = (first, last);
    if low_rest != zeros {
        alternatives.push(then(range(first, first), of_one_length(low_rest, &nines)));
        from = step(first, 1);
    }
    if high_rest != nines {
        to = step(last, -1);
    }
    if from <= to {
        alternatives.push(then(range(from, to), all()));
    }
    if high_rest != nines {
        alternatives.push(then(range(last, last), of_one_length(&zeros, high_rest)));
    }
    any_of(alternatives)
}

fn step(digit: char, by: i8) -> char {
    char::from((digit as u8).wrapping_add_signed(by))
}
