//! Units: what may follow a number, and one name for each unit.
//!
//! A unit on one side only is left out, as MATH's `is_equiv` (<https://github.com/hendrycks/math>) and Math-Verify do. Two
//! different units are never equal, and nothing is converted. Words that change the value ("less", "half", "or", "to") are
//! no units, and make the answer plain text.

use crate::words::number_word;

/// Words that cannot be part of a unit.
const NOT_UNITS: [&str; 61] = [
    "above",
    "after",
    "ago",
    "are",
    "base",
    "before",
    "below",
    "but",
    "choose",
    "cubed",
    "divided",
    "double",
    "eighth",
    "eighths",
    "except",
    "factorial",
    "fifth",
    "fifths",
    "fourth",
    "fourths",
    "from",
    "half",
    "halves",
    "hundredth",
    "hundredths",
    "if",
    "is",
    "less",
    "minus",
    "mod",
    "modulo",
    "more",
    "negative",
    "no",
    "not",
    "over",
    "percent",
    "plus",
    "point",
    "power",
    "quarter",
    "quarters",
    "root",
    "sixth",
    "sixths",
    "squared",
    "tenth",
    "tenths",
    "than",
    "third",
    "thirds",
    "thousandth",
    "thousandths",
    "through",
    "times",
    "to",
    "trillion",
    "twice",
    "under",
    "until",
    "when",
];

/// Most words of a unit: "red balls left over" is no unit any more.
pub(crate) const MAX_WORDS: usize = 4;

/// May the word stand in a unit?
pub(crate) fn is_unit_word(word: &str) -> bool {
    let lower = word.to_lowercase();
    !NOT_UNITS.contains(&lower.as_str()) && number_word(&lower).is_none()
}

/// One name per unit: abbreviations and plurals of the common ones, the plural's s of all others. Short ones keep their case:
/// mW is not MW.
pub(crate) fn canonical(word: &str) -> String {
    let lower = word.to_lowercase();
    let key = if word.len() == 1 { word } else { &lower };
    let known = match key {
        "cm" | "centimeter" | "centimeters" | "centimetre" | "centimetres" => "cm",
        "mm" | "millimeter" | "millimeters" | "millimetre" | "millimetres" => "mm",
        "km" | "kilometer" | "kilometers" | "kilometre" | "kilometres" => "km",
        "m" | "meter" | "meters" | "metre" | "metres" => "m",
        "in" | "inch" | "inches" => "in",
        "ft" | "foot" | "feet" => "ft",
        "yd" | "yard" | "yards" => "yd",
        "mi" | "mile" | "miles" => "mi",
        "kg" | "kilogram" | "kilograms" => "kg",
        "g" | "gram" | "grams" => "g",
        "mg" | "milligram" | "milligrams" => "mg",
        "lb" | "lbs" | "pounds" | "pound" => "lb",
        "oz" | "ounce" | "ounces" => "oz",
        "s" | "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" => "min",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "day" | "days" => "day",
        "am" => "am",
        "pm" => "pm",
        "l" | "L" | "liter" | "liters" | "litre" | "litres" => "L",
        "ml" | "milliliter" | "milliliters" => "ml",
        "mph" => "mi/h",
        "degree" | "degrees" | "deg" => "degree",
        "rad" | "radian" | "radians" => "rad",
        "dollar" | "dollars" | "usd" | "bucks" => "dollar",
        "cent" | "cents" => "cent",
        "euro" | "euros" | "eur" => "euro",
        "sq" | "square" => "square",
        "cu" | "cubic" => "cubic",
        _ => "",
    };
    if !known.is_empty() {
        return known.to_owned();
    }
    match lower.strip_suffix('s') {
        Some(stem) if stem.len() > 2 && !stem.ends_with('s') => stem.to_owned(),
        _ if word.len() <= 3 => word.to_owned(),
        _ => lower,
    }
}

/// The name of a unit from its parts, such as `["square", "cm"]`, `["cm", "^2"]` or `["mi", "/", "h"]`.
pub(crate) fn join(parts: &[String]) -> String {
    let mut name = String::new();
    let mut raise = None;
    for part in parts {
        match part.as_str() {
            "square" => raise = Some("^2"),
            "cubic" => raise = Some("^3"),
            // "degrees of arc", "pieces of cake": the small words do not tell units apart.
            "of" | "the" | "a" | "an" | "in" if parts.len() > 1 => {}
            "per" => name.push('/'),
            _ => {
                if !name.is_empty() && !name.ends_with('/') && !part.starts_with(['^', '/']) {
                    name.push(' ');
                }
                name.push_str(part);
                if let Some(power) = raise.take() {
                    name.push_str(power);
                }
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(words: &[&str]) -> String {
        let parts: Vec<String> = words.iter().map(|word| canonical(word)).collect();
        join(&parts)
    }

    #[test]
    fn one_name_per_unit() {
        assert_eq!(name(&["square", "centimeters"]), name(&["cm", "^2"]));
        assert_eq!(name(&["miles", "per", "hour"]), name(&["mph"]));
        assert_eq!(name(&["apples"]), name(&["apple"]));
        assert_ne!(name(&["cm"]), name(&["m"]));
        assert_ne!(name(&["cm"]), name(&["cm", "^2"]));
    }
}
