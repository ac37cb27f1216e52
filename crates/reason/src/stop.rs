//! Stop strings: ends the answer at the first of them, over any token borders.
//!
//! No part of a stop string is ever given out: text that could be the beginning of one is held back until the next piece
//! decides it. Stop strings look at the answer, not at the thought. Called by `stream`.

use crate::split::partial;

/// The incremental matcher of one stream.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<String>,
    held: String,
    /// Its place in `stops`, once one was met.
    met: Option<usize>,
}

impl StopMatcher {
    /// `stops` must not hold an empty string (the query is checked for it).
    pub fn new(stops: &[String]) -> Self {
        assert!(stops.iter().all(|s| !s.is_empty()), "empty stop string");
        Self {
            stops: stops.to_vec(),
            held: String::new(),
            met: None,
        }
    }

    /// Whether a stop string was met.
    pub fn stopped(&self) -> bool {
        self.met.is_some()
    }

    /// The stop string that was met; of two at the same place the shorter, which is there first.
    pub fn met(&self) -> Option<&str> {
        self.met.map(|place| self.stops[place].as_str())
    }

    /// Takes the next text; returns what may be shown. After a stop it returns nothing more.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped() {
            return String::new();
        }
        self.held.push_str(text);
        let found = self.stops.iter().enumerate().filter_map(|(place, stop)| {
            let at = self.held.find(stop)?;
            Some((at, stop.len(), place))
        });
        if let Some((at, _, place)) = found.min() {
            self.met = Some(place);
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let wait = self.stops.iter().map(|s| partial(&self.held, s)).max();
        let rest = self.held.split_off(self.held.len() - wait.unwrap_or(0));
        std::mem::replace(&mut self.held, rest)
    }

    /// The stream is over: what was held back was no stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str, stops: &[&str], size: usize) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut shown = String::new();
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(size) {
            shown.push_str(&matcher.push(&piece.iter().collect::<String>()));
            for stop in &stops {
                assert!(!shown.contains(stop.as_str()), "{shown:?} shows {stop:?}");
            }
        }
        shown.push_str(&matcher.finish());
        (shown, matcher.stopped())
    }

    #[test]
    fn the_first_stop_ends_the_text_at_every_cut() {
        let cases: [(&str, &[&str], &str, bool); 7] = [
            ("one two END three", &["END"], "one two ", true),
            ("one two EN", &["END"], "one two EN", false),
            ("aab", &["ab"], "a", true),
            ("xEENDy", &["END"], "xE", true),
            ("a\n\nb", &["\n\n", "b"], "a", true),
            ("é€stop", &["stop"], "é€", true),
            ("plain", &[], "plain", false),
        ];
        for (text, stops, shown, stopped) in cases {
            for size in 1..=text.len() {
                assert_eq!(
                    run(text, stops, size),
                    (shown.to_owned(), stopped),
                    "{text:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn nothing_comes_after_a_stop() {
        let mut matcher = StopMatcher::new(&["X".into()]);
        assert_eq!(matcher.push("aXb"), "a");
        assert_eq!(matcher.push("c"), "");
        assert_eq!(matcher.finish(), "");
        assert_eq!(matcher.met(), Some("X"));
    }

    #[test]
    fn says_which_was_met_at_every_cut() {
        let stops = ["ENDX".to_owned(), "END".to_owned(), "z".to_owned()];
        for size in 1..=6 {
            let mut matcher = StopMatcher::new(&stops);
            assert_eq!(matcher.met(), None);
            for piece in b"aENDXz".chunks(size) {
                matcher.push(std::str::from_utf8(piece).expect("ascii"));
            }
            assert_eq!(matcher.met(), Some("END"), "by {size}");
        }
    }
}
