//! What speaks against a plugin.
//!
//! Invariant: it names the symbol or the part of the file, and the rule. What nobody can grant comes first.

use std::fmt;

use serde::Serialize;

/// Most subjects of one rule that a sentence names.
const MOST_NAMED: usize = 3;

/// One reason against a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Objection {
    /// The symbol, library or part of the file.
    pub subject: String,
    /// The rule that it breaks.
    pub rule: String,
    /// What would allow it, as an entry of `allow`; `None` if no entry does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<&'static str>,
    /// What in an author's code leads there, most often.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub likely: Option<String>,
}

impl Objection {
    /// One that no grant changes.
    pub(crate) fn fatal(subject: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            rule: rule.into(),
            grant: None,
            likely: None,
        }
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.subject, self.rule)
    }
}

/// Objections to one rule, as people read them: `` `fork`, `execvp`, `waitpid` and 2 more: why ``.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grouped<'a> {
    objections: Vec<&'a Objection>,
}

impl<'a> Grouped<'a> {
    /// Objections by rule, in the order in which they come.
    pub fn all(objections: &'a [Objection]) -> Vec<Self> {
        let mut all = Vec::<Self>::new();
        for objection in objections {
            match all.iter_mut().find(|it| it.rule() == objection.rule) {
                Some(group) => group.objections.push(objection),
                None => all.push(Self {
                    objections: vec![objection],
                }),
            }
        }
        all
    }

    fn subjects(&self) -> impl Iterator<Item = &'a str> {
        self.objections.iter().map(|it| it.subject.as_str())
    }

    /// The rule, and what likely breaks it.
    fn why(&self) -> String {
        match self.objections.first().and_then(|it| it.likely.as_ref()) {
            Some(likely) => format!("{} (most likely {likely})", self.rule()),
            None => self.rule().to_owned(),
        }
    }

    /// Whether the sentence names every subject.
    fn names_all(&self) -> bool {
        self.named() == self.objections.len()
    }

    /// How many it names. One more is as short as its name.
    fn named(&self) -> usize {
        match self.objections.len() {
            all if all <= MOST_NAMED + 1 => all,
            _ => MOST_NAMED,
        }
    }

    fn rule(&self) -> &'a str {
        self.objections.first().map_or("", |it| it.rule.as_str())
    }
}

impl fmt::Display for Grouped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.subjects().take(self.named());
        let named: Vec<_> = named.map(|it| format!("`{it}`")).collect();
        f.write_str(&named.join(", "))?;
        if !self.names_all() {
            write!(f, " and {} more", self.objections.len() - named.len())?;
        }
        write!(f, ": {}", self.why())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objection(subject: &str, rule: &str) -> Objection {
        Objection::fatal(subject, rule)
    }

    #[test]
    fn many_symbols_of_a_rule_are_one() {
        let mut all: Vec<_> = (1..=9)
            .map(|it| objection(&format!("s{it}"), "no"))
            .collect();
        all.push(objection("other", "not this"));
        all.push(objection("s10", "no"));
        all[0].likely = Some("a crate".to_owned());
        let said: Vec<_> = Grouped::all(&all).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "`s1`, `s2`, `s3` and 7 more: no (most likely a crate)",
                "`other`: not this"
            ]
        );
        let said = Grouped::all(&all[1..5])[0].to_string();
        assert_eq!(said, "`s2`, `s3`, `s4`, `s5`: no");
    }
}
