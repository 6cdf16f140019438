//! The names of tests: what must hold, in few words.

use std::{fs, path::Path};

use hotmerge_tests::repository;

/// The most words of a test's name.
const MOST_WORDS: usize = 8;

/// The names of the tests in a source text.
fn tests(text: &str) -> impl Iterator<Item = &str> {
    let after_mark = text.split("#[test]\n").skip(1);
    after_mark.filter_map(|rest| {
        let (_, name) = rest.split_once("fn ")?;
        name.split(|sign: char| !(sign.is_alphanumeric() || sign == '_'))
            .next()
    })
}

fn look(folder: &Path, long: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the repository can be read") {
        let path = entry.expect("the repository can be read").path();
        if path.is_dir() {
            if !path.ends_with("target") && !path.ends_with(".git") {
                look(&path, long);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("sources are text");
            let names = tests(&text).filter(|name| name.split('_').count() > MOST_WORDS);
            long.extend(names.map(|name| format!("{}: {name}", path.display())));
        }
    }
}

#[test]
fn test_names_have_at_most_eight_words() {
    let mut long = Vec::new();
    look(repository(), &mut long);
    assert!(
        long.is_empty(),
        "a longer story goes into a comment: {long:#?}"
    );
}

#[test]
fn names_of_tests_are_found() {
    let text = "#[test]\nfn one() {}\nfn two() {}\n    #[test]\n    #[ignore]\n    fn three() {}\n";
    assert_eq!(tests(text).collect::<Vec<_>>(), ["one", "three"]);
}
