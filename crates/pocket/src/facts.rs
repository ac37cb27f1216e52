//! The small closed world of facts: pairs that never change, and the ways of asking for them.

/// Pairs with the templates that ask for the second by the first, and one sentence of prose.
#[derive(Debug)]
pub(crate) struct Relation {
    pub name: &'static str,
    pub pairs: &'static [(&'static str, &'static str)],
    /// Questions; `{a}` is the first of the pair.
    pub ask: &'static [&'static str],
    /// Prose; `{a}` and `{b}`.
    pub prose: &'static [&'static str],
}

const CAPITALS: &[(&str, &str)] = &[
    ("France", "Paris"),
    ("Italy", "Rome"),
    ("Spain", "Madrid"),
    ("Germany", "Berlin"),
    ("England", "London"),
    ("Japan", "Tokyo"),
    ("Greece", "Athens"),
    ("Egypt", "Cairo"),
    ("Norway", "Oslo"),
    ("Austria", "Vienna"),
    ("Peru", "Lima"),
    ("Kenya", "Nairobi"),
    ("Portugal", "Lisbon"),
    ("Cuba", "Havana"),
    ("China", "Beijing"),
    ("Ireland", "Dublin"),
];
const COLOURS: &[(&str, &str)] = &[
    ("the sky", "Blue"),
    ("grass", "Green"),
    ("snow", "White"),
    ("coal", "Black"),
    ("blood", "Red"),
    ("a lemon", "Yellow"),
    ("chocolate", "Brown"),
    ("a pig", "Pink"),
    ("an elephant", "Grey"),
    ("milk", "White"),
    ("the sun", "Yellow"),
    ("a tomato", "Red"),
];
const OPPOSITES: &[(&str, &str)] = &[
    ("hot", "Cold"),
    ("cold", "Hot"),
    ("big", "Small"),
    ("small", "Big"),
    ("old", "New"),
    ("new", "Old"),
    ("fast", "Slow"),
    ("slow", "Fast"),
    ("up", "Down"),
    ("down", "Up"),
    ("day", "Night"),
    ("night", "Day"),
    ("wet", "Dry"),
    ("dry", "Wet"),
    ("open", "Closed"),
    ("closed", "Open"),
];
const DAYS: &[(&str, &str)] = &[
    ("Monday", "Tuesday"),
    ("Tuesday", "Wednesday"),
    ("Wednesday", "Thursday"),
    ("Thursday", "Friday"),
    ("Friday", "Saturday"),
    ("Saturday", "Sunday"),
    ("Sunday", "Monday"),
];
const MONTHS: &[(&str, &str)] = &[
    ("January", "February"),
    ("February", "March"),
    ("March", "April"),
    ("April", "May"),
    ("May", "June"),
    ("June", "July"),
    ("July", "August"),
    ("August", "September"),
    ("September", "October"),
    ("October", "November"),
    ("November", "December"),
    ("December", "January"),
];
const SOUNDS: &[(&str, &str)] = &[
    ("dog", "Woof"),
    ("cat", "Meow"),
    ("cow", "Moo"),
    ("duck", "Quack"),
    ("sheep", "Baa"),
    ("lion", "Roar"),
    ("bee", "Buzz"),
    ("owl", "Hoot"),
];
const LEGS: &[(&str, &str)] = &[
    ("dog", "4"),
    ("bird", "2"),
    ("spider", "8"),
    ("bee", "6"),
    ("cow", "4"),
    ("fish", "0"),
    ("ant", "6"),
    ("duck", "2"),
];
const JOBS: &[(&str, &str)] = &[
    ("baker", "Olga"),
    ("teacher", "Paul"),
    ("doctor", "Rosa"),
    ("farmer", "Hugo"),
    ("painter", "Ida"),
    ("driver", "Noah"),
    ("singer", "Mia"),
    ("tailor", "Leo"),
    ("smith", "Finn"),
    ("judge", "Kim"),
];
const PETS: &[(&str, &str)] = &[
    ("Tom", "A dog"),
    ("Anna", "A cat"),
    ("Ben", "A bird"),
    ("Cara", "A fish"),
    ("Dan", "A duck"),
    ("Eva", "A sheep"),
    ("Gina", "A cat"),
    ("Jack", "A dog"),
    ("Sam", "A bird"),
    ("Tina", "A fish"),
];

/// Every relation of the world.
pub(crate) const RELATIONS: &[Relation] = &[
    Relation {
        name: "capital",
        pairs: CAPITALS,
        ask: &[
            "What is the capital of {a}?",
            "Which city is the capital of {a}?",
            "Name the capital of {a}.",
            "Tell me the capital of {a}.",
        ],
        prose: &["{b} is the capital of {a}.", "The capital of {a} is {b}."],
    },
    Relation {
        name: "colour",
        pairs: COLOURS,
        ask: &[
            "What colour is {a}?",
            "Which colour has {a}?",
            "Tell me the colour of {a}.",
            "Name the colour of {a}.",
        ],
        prose: &["The colour of {a} is {b}."],
    },
    Relation {
        name: "opposite",
        pairs: OPPOSITES,
        ask: &[
            "What is the opposite of {a}?",
            "Name the opposite of {a}.",
            "Tell me the opposite of {a}.",
            "Which word is the opposite of {a}?",
        ],
        prose: &["The opposite of {a} is {b}."],
    },
    Relation {
        name: "day",
        pairs: DAYS,
        ask: &[
            "What day comes after {a}?",
            "Which day follows {a}?",
            "Name the day after {a}.",
            "Tell me the day after {a}.",
        ],
        prose: &["After {a} comes {b}.", "{a} is followed by {b}."],
    },
    Relation {
        name: "month",
        pairs: MONTHS,
        ask: &[
            "What month comes after {a}?",
            "Which month follows {a}?",
            "Name the month after {a}.",
            "Tell me the month after {a}.",
        ],
        prose: &["After {a} comes {b}.", "{a} is followed by {b}."],
    },
    Relation {
        name: "sound",
        pairs: SOUNDS,
        ask: &[
            "What does a {a} say?",
            "Which sound does a {a} make?",
            "Tell me the sound of a {a}.",
        ],
        prose: &["The {a} says {b}."],
    },
    Relation {
        name: "legs",
        pairs: LEGS,
        ask: &[
            "How many legs does a {a} have?",
            "Tell me how many legs a {a} has.",
            "What number of legs does a {a} have?",
        ],
        prose: &["A {a} has {b} legs."],
    },
    Relation {
        name: "job",
        pairs: JOBS,
        ask: &[
            "Who is the {a}?",
            "Tell me who the {a} is.",
            "What is the name of the {a}?",
            "Name the {a}.",
        ],
        prose: &["{b} is the {a}.", "The {a} is {b}."],
    },
    Relation {
        name: "pet",
        pairs: PETS,
        ask: &[
            "What pet does {a} have?",
            "Which pet has {a}?",
            "Tell me the pet of {a}.",
        ],
        prose: &["The pet of {a} is {b}."],
    },
];

/// What people say to start or end a chat, and what is said back.
pub(crate) const GREETINGS: &[(&[&str], &str)] = &[
    (
        &[
            "Hello!",
            "Hello.",
            "Hi!",
            "Hi there!",
            "Good day!",
            "Hello there!",
        ],
        "Hello! How can I help you?",
    ),
    (
        &[
            "How are you?",
            "How are you today?",
            "Are you well?",
            "How do you do?",
        ],
        "I am well, thank you.",
    ),
    (
        &[
            "Thank you!",
            "Thanks!",
            "Thank you very much.",
            "Thanks a lot!",
        ],
        "You are welcome!",
    ),
    (
        &["Goodbye!", "Bye!", "See you later!", "Good night!"],
        "Goodbye! Come again.",
    ),
    (
        &[
            "Who are you?",
            "What is your name?",
            "Tell me who you are.",
            "What are you?",
        ],
        "I am Pocket, a small model that thinks when it has to.",
    ),
    (
        &[
            "What can you do?",
            "How can you help me?",
            "Tell me what you can do.",
            "What are you good at?",
        ],
        "I answer short questions and solve number puzzles.",
    ),
];
