//! Where a word problem plays: the things that are counted, and how each relation is said in English.
//!
//! A template holds `{x}` (what the sentence is about), `{y}` (what it leans on), `{z}` (the second thing it leans on), `{n}` (a number) and
//! `{u}` (the unit). `{y}` is always the thing that the chain of reasoning goes on with.

/// One setting with its sentences. Each list holds ways of saying the same.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Short name, for the record of an example.
    pub name: &'static str,
    /// What can own a number; one word each, which is also its name in a thought.
    pub entities: &'static [&'static str],
    /// How an entity is written in a sentence: `{e}` is the word.
    pub phrase: &'static str,
    /// What is counted.
    pub units: &'static [&'static str],
    pub given: &'static [&'static str],
    pub add: &'static [&'static str],
    pub sub: &'static [&'static str],
    pub double: &'static [&'static str],
    pub triple: &'static [&'static str],
    pub half: &'static [&'static str],
    pub plus: &'static [&'static str],
    pub minus: &'static [&'static str],
    /// The question for one thing.
    pub ask: &'static [&'static str],
    /// The question for the sum of two things.
    pub ask_plus: &'static [&'static str],
    /// The question for the difference of two things, the larger first.
    pub ask_minus: &'static [&'static str],
    /// A statement about something else, with `{v}` for what it is about.
    pub aside: &'static [&'static str],
}

/// First names; one token each.
pub(crate) const NAMES: &[&str] = &[
    "Tom", "Anna", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jack", "Kim",
    "Leo", "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina",
];

/// Things that people own; also what asides speak of.
pub(crate) const THINGS: &[&str] = &[
    "apples", "books", "cards", "coins", "cups", "eggs", "nuts", "pens", "shells", "stamps",
];

/// What asides count, never the unit of a problem.
pub(crate) const OTHER_THINGS: &[&str] = &["hats", "keys", "bags", "dogs", "cats", "songs"];

/// Adjectives for asides.
pub(crate) const ADJECTIVES: &[&str] = &["old", "new", "small", "big"];

const PEOPLE: Scenario = Scenario {
    name: "people",
    entities: NAMES,
    phrase: "{e}",
    units: THINGS,
    given: &["{x} has {n} {u}."],
    add: &[
        "{x} has {n} more {u} than {y}.",
        "{x} has {n} more than {y}.",
    ],
    sub: &[
        "{x} has {n} fewer {u} than {y}.",
        "{x} has {n} fewer than {y}.",
    ],
    double: &[
        "{x} has twice as many {u} as {y}.",
        "{x} has twice as many as {y}.",
    ],
    triple: &[
        "{x} has three times as many {u} as {y}.",
        "{x} has three times as many as {y}.",
    ],
    half: &[
        "{x} has half as many {u} as {y}.",
        "{x} has half as many as {y}.",
    ],
    plus: &[
        "{x} has as many {u} as {y} and {z} together.",
        "{x} has as many as {y} and {z} together.",
    ],
    minus: &["{x} has as many {u} as the difference between {y} and {z}."],
    ask: &["How many {u} does {x} have?", "How many {u} does {x} own?"],
    ask_plus: &["How many {u} do {y} and {z} have together?"],
    ask_minus: &["How many more {u} does {y} have than {z}?"],
    aside: &[
        "{x} has {n} {a} {v}.",
        "{x} owns {n} {v}.",
        "{x} lost {n} {v}.",
    ],
};

const BOXES: Scenario = Scenario {
    name: "boxes",
    entities: &[
        "red", "blue", "green", "white", "black", "yellow", "brown", "pink", "grey", "orange",
        "purple", "golden",
    ],
    phrase: "the {e} box",
    units: THINGS,
    given: &["{x} holds {n} {u}."],
    add: &[
        "{x} holds {n} more {u} than {y}.",
        "{x} holds {n} more than {y}.",
    ],
    sub: &[
        "{x} holds {n} fewer {u} than {y}.",
        "{x} holds {n} fewer than {y}.",
    ],
    double: &[
        "{x} holds twice as many {u} as {y}.",
        "{x} holds twice as many as {y}.",
    ],
    triple: &["{x} holds three times as many {u} as {y}."],
    half: &[
        "{x} holds half as many {u} as {y}.",
        "{x} holds half as many as {y}.",
    ],
    plus: &["{x} holds as many {u} as {y} and {z} together."],
    minus: &["{x} holds as many {u} as the difference between {y} and {z}."],
    ask: &[
        "How many {u} does {x} hold?",
        "How many {u} are there in {x}?",
    ],
    ask_plus: &["How many {u} do {y} and {z} hold together?"],
    ask_minus: &["How many more {u} does {y} hold than {z}?"],
    aside: &["{x} holds {n} {a} {v}.", "There are {n} {v} in {x}."],
};

const PRICES: Scenario = Scenario {
    name: "prices",
    entities: &[
        "lamp", "chair", "table", "clock", "bike", "radio", "phone", "desk", "ball", "coat",
        "ring", "knife",
    ],
    phrase: "the {e}",
    units: &["dollars", "coins"],
    given: &["{x} costs {n} {u}."],
    add: &[
        "{x} costs {n} {u} more than {y}.",
        "{x} costs {n} more than {y}.",
    ],
    sub: &[
        "{x} costs {n} {u} less than {y}.",
        "{x} costs {n} less than {y}.",
    ],
    double: &["{x} costs twice as much as {y}."],
    triple: &["{x} costs three times as much as {y}."],
    half: &["{x} costs half as much as {y}."],
    plus: &["{x} costs as much as {y} and {z} together."],
    minus: &["{x} costs as much as the difference between {y} and {z}."],
    ask: &["How many {u} does {x} cost?", "What does {x} cost?"],
    ask_plus: &["How many {u} do {y} and {z} cost together?"],
    ask_minus: &["How many more {u} does {y} cost than {z}?"],
    aside: &[
        "There are {n} {a} {v} in the shop.",
        "The shop sold {n} {v}.",
    ],
};

const MONTHS: Scenario = Scenario {
    name: "months",
    entities: &[
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    phrase: "in {e}",
    units: THINGS,
    given: &["{x} the shop sold {n} {u}."],
    add: &[
        "{x} the shop sold {n} more {u} than {y}.",
        "{x} it sold {n} more than {y}.",
    ],
    sub: &[
        "{x} the shop sold {n} fewer {u} than {y}.",
        "{x} it sold {n} fewer than {y}.",
    ],
    double: &["{x} the shop sold twice as many {u} as {y}."],
    triple: &["{x} the shop sold three times as many {u} as {y}."],
    half: &["{x} the shop sold half as many {u} as {y}."],
    plus: &["{x} the shop sold as many {u} as {y} and {z} together."],
    minus: &["{x} the shop sold as many {u} as the difference between {y} and {z}."],
    ask: &["How many {u} did the shop sell {x}?"],
    ask_plus: &["How many {u} did the shop sell {y} and {z} together?"],
    ask_minus: &["How many more {u} did the shop sell {y} than {z}?"],
    aside: &[
        "There are {n} {a} {v} in the shop.",
        "{x} the shop sold {n} {v}.",
    ],
};

/// One short sentence for each relation: what the first texts of a training are made of.
const FIRST: Scenario = Scenario {
    name: "first",
    entities: NAMES,
    phrase: "{e}",
    units: THINGS,
    given: &["{x} has {n} {u}."],
    add: &["{x} has {n} more than {y}."],
    sub: &["{x} has {n} fewer than {y}."],
    double: &["{x} has twice as many as {y}."],
    triple: &["{x} has three times as many as {y}."],
    half: &["{x} has half as many as {y}."],
    plus: &["{x} has as many as {y} and {z} together."],
    minus: &["{x} has as many as the difference between {y} and {z}."],
    ask: &["How many {u} does {x} have?"],
    ask_plus: &["How many {u} do {y} and {z} have together?"],
    ask_minus: &["How many more {u} does {y} have than {z}?"],
    aside: &["{x} has {n} {v}."],
};

/// Kept for the shifted evaluation set: its sentences are never trained on.
const RACES: Scenario = Scenario {
    name: "points",
    entities: NAMES,
    phrase: "{e}",
    units: &["cards", "coins", "stamps", "shells"],
    given: &["There are {n} {u} with {x}.", "{n} {u} are with {x}."],
    add: &[
        "{x} owns {n} {u} more than {y}.",
        "Than {y}, {x} has {n} more {u}.",
    ],
    sub: &[
        "{x} owns {n} {u} less than {y}.",
        "Than {y}, {x} has {n} fewer {u}.",
    ],
    double: &["{x} owns twice as many {u} as {y} has."],
    triple: &["{x} owns three times as many {u} as {y} has."],
    half: &["{x} owns half as many {u} as {y} has."],
    plus: &["{x} owns as many {u} as {y} and {z} have together."],
    minus: &["{x} owns as many {u} as the difference between {y} and {z} is."],
    ask: &["What is the number of {u} that {x} has?"],
    ask_plus: &["How many {u} are there with {y} and {z} together?"],
    ask_minus: &["What is the difference between {y} and {z}?"],
    aside: &["There are {n} {a} {v} with {x}.", "{n} {v} are with {x}."],
};

/// What problems are about, besides people.
pub(crate) const WORD_GROUPS: &[&[&str]] = &[BOXES.entities, PRICES.entities, MONTHS.entities];

/// The settings of training, and their shares.
pub(crate) const SCENARIOS: &[(&Scenario, f64)] = &[
    (&PEOPLE, 0.5),
    (&BOXES, 0.2),
    (&PRICES, 0.2),
    (&MONTHS, 0.1),
];

/// The setting of the first texts.
pub(crate) const SIMPLE: &[(&Scenario, f64)] = &[(&FIRST, 1.0)];

/// The settings of the shifted set.
pub(crate) const SHIFTED: &[(&Scenario, f64)] = &[(&RACES, 1.0)];

/// The one-step questions of everyday kind use the people's sentences.
pub(crate) const fn people() -> &'static Scenario {
    &PEOPLE
}

/// Fills a template and starts it with a capital letter.
pub(crate) fn fill(template: &str, slots: &[(&str, &str)]) -> String {
    let mut text = template.to_owned();
    for (slot, value) in slots {
        text = text.replace(slot, value);
    }
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => text,
    }
}
