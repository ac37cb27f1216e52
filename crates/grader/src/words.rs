//! Tables of letters and words: what a run of letters is, numbers in words, Greek letters, signs of Unicode.

/// Words of two letters that are no products of variables.
const SHORT_WORDS: [&str; 48] = [
    "am", "an", "as", "at", "be", "by", "cc", "cl", "cm", "dl", "dm", "do", "ft", "gb", "go", "he",
    "hi", "hr", "if", "in", "is", "it", "kb", "kg", "km", "lb", "mb", "me", "mg", "mi", "ml", "mm",
    "my", "nd", "no", "of", "ok", "on", "oz", "pm", "rd", "so", "st", "th", "to", "up", "us", "we",
];

/// Is this run of letters a product of one-letter variables? `xy` and `abc` are; `no`, `cm`, `Na` and `cat` are words.
pub(crate) fn is_product(run: &str) -> bool {
    let len = run.chars().count();
    if len == 1 {
        return run.is_ascii();
    }
    let lower = run.to_ascii_lowercase();
    let one_case = run == lower || run == run.to_ascii_uppercase();
    match len {
        2 => run.is_ascii() && one_case && !SHORT_WORDS.contains(&lower.as_str()),
        3 => {
            let of = |set: &str| run.chars().all(|c| set.contains(c));
            of("abc") || of("xyz") || of("ABC") || of("XYZ")
        }
        _ => false,
    }
}

/// The number that a word names.
pub(crate) fn number_word(word: &str) -> Option<u32> {
    const ONES: [&str; 21] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
    ];
    const TENS: [&str; 8] = [
        "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred",
    ];
    let position = |table: &[&str]| table.iter().position(|name| *name == word);
    position(&ONES)
        .or_else(|| position(&TENS).map(|index| 30 + 10 * index))
        .map(|value| value as u32)
}

/// Zeros that a word after a number adds, or a dozen.
pub(crate) fn multiplier(word: &str) -> Option<u32> {
    Some(match word {
        "dozen" => 12,
        "hundred" => 100,
        "thousand" => 1_000,
        "million" => 1_000_000,
        "billion" => 1_000_000_000,
        _ => return None,
    })
}

/// Words before a number that leave its value.
pub(crate) fn is_filler(word: &str) -> bool {
    matches!(
        word,
        "approximately" | "about" | "roughly" | "exactly" | "only" | "just" | "around"
    )
}

/// The variable that a LaTeX command names.
pub(crate) fn greek(name: &str) -> Option<&str> {
    const LETTERS: [&str; 33] = [
        "alpha", "beta", "gamma", "delta", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu",
        "nu", "xi", "rho", "sigma", "tau", "upsilon", "chi", "psi", "omega", "Gamma", "Delta",
        "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "ell", "hbar",
    ];
    match name {
        "phi" | "varphi" => Some("phi"),
        "epsilon" | "varepsilon" => Some("epsilon"),
        "vartheta" => Some("theta"),
        _ => LETTERS.contains(&name).then_some(name),
    }
}

/// The unit that a sign of money names.
pub(crate) fn currency(sign: char) -> Option<&'static str> {
    Some(match sign {
        '€' => "euro",
        '£' => "pound",
        '¥' => "yen",
        '₹' => "rupee",
        _ => return None,
    })
}

/// `½` and its kind.
pub(crate) fn vulgar(c: char) -> Option<(u32, u32)> {
    Some(match c {
        '½' => (1, 2),
        '⅓' => (1, 3),
        '⅔' => (2, 3),
        '¼' => (1, 4),
        '¾' => (3, 4),
        '⅕' => (1, 5),
        '⅖' => (2, 5),
        '⅗' => (3, 5),
        '⅘' => (4, 5),
        '⅙' => (1, 6),
        '⅚' => (5, 6),
        '⅛' => (1, 8),
        '⅜' => (3, 8),
        '⅝' => (5, 8),
        '⅞' => (7, 8),
        _ => return None,
    })
}

/// The character that a superscript raises.
pub(crate) fn superscript(c: char) -> Option<char> {
    const SIGNS: &str = "⁰¹²³⁴⁵⁶⁷⁸⁹";
    if c == '⁻' {
        return Some('-');
    }
    let index = SIGNS.chars().position(|sign| sign == c)?;
    char::from_digit(index as u32, 10)
}
