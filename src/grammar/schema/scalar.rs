//! Numbers, texts and constants.

use serde_json::{Map, Value};

use super::{
    CHARACTER, NUMBER, Writer,
    error::{SchemaError, below, invalid, unsupported},
    exclusion::kind_of,
    kinds_of,
    nested::{count, repeated},
};
use crate::grammar::{
    notation::{any_of, literal},
    number, regex,
};

impl Writer<'_> {
    pub(super) fn number(&mut self, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
        let bound = |keyword: &str| match fields.get(keyword) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| invalid(&below(pointer, keyword), "a number")),
        };
        let (low, high) = (bound("minimum")?, bound("maximum")?);
        let (above, under) = (bound("exclusiveMinimum")?, bound("exclusiveMaximum")?);
        if (low, high, above, under) == (None, None, None, None) {
            return Ok(self.rules.add("number", NUMBER.to_owned()));
        }
        // A whole number of more than 53 bits may have become a smaller double, or a larger one.
        let exact = |bound: f64| bound.abs() <= EXACT;
        let low = low.map(|low| if exact(low) { low } else { low.next_up() });
        let high = high.map(|high| if exact(high) { high } else { high.next_down() });
        // The next whole number within an exclusive bound, or the next double: what lies between them is given up.
        let above = above.map(|above| if exact(above) { above.floor() + 1.0 } else { above.next_up().next_up() });
        let under = under.map(|under| if exact(under) { under.ceil() - 1.0 } else { under.next_down().next_down() });
        let low = low.into_iter().chain(above).reduce(f64::max);
        let high = high.into_iter().chain(under).reduce(f64::min);
        number::numbers(low, high).ok_or_else(|| SchemaError::Impossible(pointer.to_owned()))
    }

    pub(super) fn string(&mut self, fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
        let character = self.rules.add("char", CHARACTER.to_owned());
        let (least, most) = (count(fields, "minLength", pointer)?, count(fields, "maxLength", pointer)?);
        if let Some(pattern) = fields.get("pattern") {
            let at = below(pointer, "pattern");
            if least.is_some() || most.is_some() {
                return Err(unsupported(pointer, "pattern together with a length"));
            }
            let pattern = pattern.as_str().ok_or_else(|| invalid(&at, "a text"))?;
            let inner = regex::in_json_string(pattern, &character, &mut self.rules)
                .map_err(|source| SchemaError::Pattern { pointer: at, source })?;
            return Ok(self.text(&inner));
        }
        if let (None, None, Some(format)) = (least, most, fields.get("format").and_then(Value::as_str))
            && let Some(text) = formatted(format)
        {
            return Ok(self.text(&text));
        }
        let inner = repeated(&character, least, most, pointer)?;
        Ok(self.text(&inner))
    }

    /// What stands in quotation marks: a rule of its own, so that it is known for one lexeme.
    pub(super) fn text(&mut self, inner: &str) -> String {
        self.rules.add("text", format!("\"\\\"\" {inner} \"\\\"\""))
    }
}

/// The largest whole number up to which a double has all of them: every reader agrees on those.
const EXACT: f64 = ((1_i64 << 53) - 1) as f64;

pub(super) fn integer(fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
    const WIDEST: i128 = EXACT as i128;
    let format = fields.get("format").and_then(Value::as_str);
    let range: Option<(i128, i128)> = match format {
        Some("int8") => Some((i8::MIN.into(), i8::MAX.into())),
        Some("int16") => Some((i16::MIN.into(), i16::MAX.into())),
        Some("int32") => Some((i32::MIN.into(), i32::MAX.into())),
        Some("int64" | "int") => Some((i64::MIN.into(), i64::MAX.into())),
        Some("uint8") => Some((0, u8::MAX.into())),
        Some("uint16") => Some((0, u16::MAX.into())),
        Some("uint32") => Some((0, u32::MAX.into())),
        Some("uint64" | "uint") => Some((0, u64::MAX.into())),
        _ => None,
    };
    // What 64 bits hold: nothing reads more.
    let (mut low, mut high) = range.unwrap_or((i64::MIN.into(), u64::MAX.into()));
    let (mut bounded_below, mut bounded_above) = (range.is_some(), range.is_some());
    for (keyword, is_low, step) in
        [("minimum", true, 0), ("exclusiveMinimum", true, 1), ("maximum", false, 0), ("exclusiveMaximum", false, -1)]
    {
        let Some(bound) = fields.get(keyword) else { continue };
        let wrong = || invalid(&below(pointer, keyword), "a number");
        let whole = bound.as_i64().map(i128::from).or(bound.as_u64().map(i128::from));
        let whole = match whole {
            Some(whole) => whole + step,
            None => {
                let bound = bound.as_f64().ok_or_else(wrong)?;
                // 2.5 and above begins with 3, whether 2.5 itself counts or not.
                let whole = if is_low { bound.ceil() } else { bound.floor() };
                whole as i128 + if whole == bound { step } else { 0 }
            }
        };
        (low, high) = if is_low { (low.max(whole), high) } else { (low, high.min(whole)) };
        (bounded_below, bounded_above) = (bounded_below || is_low, bounded_above || !is_low);
    }
    // Where nothing is said, what every reader agrees on, unless nothing of that is left.
    if !bounded_above && low <= WIDEST {
        high = WIDEST;
    }
    if !bounded_below && high >= -WIDEST {
        low = -WIDEST;
    }
    number::integers(low, high).ok_or_else(|| SchemaError::Impossible(pointer.to_owned()))
}

/// Texts of formats that have one shape; the other formats are comments.
fn formatted(format: &str) -> Option<String> {
    let hex = |count: u32| format!("[0-9a-f]{{{count}}}");
    let date = r#"[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8])"#;
    let time = r#"([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9]"#;
    Some(match format {
        "date" => date.to_owned(),
        "time" => format!("{time} \"Z\""),
        "date-time" => format!("{date} \"T\" {time} \"Z\""),
        "uuid" => [hex(8), hex(4), hex(4), hex(4), hex(12)].join(" \"-\" "),
        _ => return None,
    })
}

/// One of these values, of those that have the right type.
pub(super) fn constants(values: &[Value], fields: &Map<String, Value>, pointer: &str) -> Result<String, SchemaError> {
    let kinds = if fields.contains_key("type") { Some(kinds_of(fields, pointer)?) } else { None };
    let is = |value: &Value, kind: &str| match kind {
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => kind == kind_of(value),
    };
    let fits = |value: &&Value| kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| is(value, kind)));
    let alternatives: Vec<String> = values.iter().filter(fits).map(|value| literal(&value.to_string())).collect();
    match alternatives.is_empty() {
        true => Err(SchemaError::Impossible(pointer.to_owned())),
        false => Ok(any_of(alternatives)),
    }
}
