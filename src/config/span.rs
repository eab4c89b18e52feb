//! Lengths of time as people write them: `30s`, `1m`, `24h`, `7d`, `1h 30m`; `off` for never.

use std::fmt;
use std::time::Duration;

use jiff::SpanRelativeTo;
use serde::{Deserialize, Deserializer};

/// A length of time, or none: what is done every so long, or within it, is then not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span(pub Option<Duration>);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text.trim(), "off" | "0") {
            return Ok(Self(None));
        }
        let error = || format!("`{text}` is no length of time; write 30s, 1m, 24h, 7d, or off");
        let span: jiff::Span = text.trim().parse().map_err(|_| error())?;
        let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| error())?;
        let length = Duration::try_from(length).map_err(|_| error())?;
        Ok(Self(Some(length).filter(|length| !length.is_zero())))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of time, such as \"30s\", \"1m\", \"24h\", \"7d\" or \"off\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Span, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Span, E> {
                if number == 0 {
                    return Ok(Span(None));
                }
                Err(E::custom(format!(
                    "{number} of what? write \"{number}s\", \"{number}m\", \"{number}h\" or \"{number}d\""
                )))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_a_number_and_its_unit_or_off() {
        let seconds = |text: &str| text.parse::<Span>().map(|span| span.0.map(|length| length.as_secs()));
        for (text, expected) in
            [("30s", 30), ("1m", 60), ("24h", 86_400), ("7d", 604_800), ("1h 30m", 5_400), (" 2w ", 1_209_600)]
        {
            assert_eq!(seconds(text), Ok(Some(expected)), "{text}");
        }
        for never in ["off", "0", "0s"] {
            assert_eq!(seconds(never), Ok(None), "{never}");
        }
        for wrong in ["", "30", "-1m", "soon", "1 month", "1y"] {
            assert!(seconds(wrong).is_err(), "{wrong}: {:?}", seconds(wrong));
        }
    }
}
