//! Cuts answers that do not fit into a frame.
//!
//! It first shortens the longest texts of such an answer, then drops entries of its longest list, and
//! notes in the answer what was cut.
//!
//! Absent on purpose: the meaning of an answer, except for where to put that note.

use std::io;

use hotmerge_meta::cut;
use serde::Serialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

/// The length to which texts are cut in each successive attempt, in bytes.
const TEXTS: [usize; 3] = [16 * 1024, 1024, 160];

/// The JSON form of an answer, cut to the limit if possible.
pub(crate) fn fit(
    answer: &impl Serialize,
    limit: usize,
) -> Result<Box<RawValue>, serde_json::Error> {
    let whole = to_raw_value(answer)?;
    if whole.get().len() <= limit {
        return Ok(whole);
    }
    let mut value: Value = serde_json::from_str(whole.get())?;
    drop(whole);
    for text in TEXTS {
        cut_texts(&mut value, text);
        if encoded_len(&value) <= limit {
            return to_raw_value(&value);
        }
    }
    // Room for the note.
    let over = encoded_len(&value).saturating_sub(limit.saturating_sub(1024));
    leave_out(&mut value, over);
    to_raw_value(&value)
}

/// The length of its JSON form, in bytes.
pub(crate) fn encoded_len(value: &Value) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // Neither the counter nor a parsed value fails.
    let _ = serde_json::to_writer(&mut counter, value);
    counter.0
}

/// Foreign text made safe to show on one line, of at most `to` bytes and a note.
#[cfg(feature = "http")]
pub(crate) fn plain_within(text: &str, to: usize) -> String {
    let mut plain = hotmerge_meta::plain(text);
    cut(&mut plain, to);
    plain
}

fn cut_texts(value: &mut Value, to: usize) {
    match value {
        // A text that was cut before is a little longer than its cut.
        Value::String(text) => cut(text, to),
        Value::Array(all) => all.iter_mut().for_each(|it| cut_texts(it, to)),
        Value::Object(all) => all.values_mut().for_each(|it| cut_texts(it, to)),
        _ => {}
    }
}

/// Drops entries of the longest list: the first and thus oldest ones if the answer is a list, otherwise
/// the last ones.
fn leave_out(value: &mut Value, over: usize) {
    match value {
        Value::Array(list) => {
            let count = fewest(list.iter(), over);
            list.drain(..count);
            if let Some(Value::Object(oldest)) = list.first_mut() {
                let reason = oldest.get("reason").and_then(Value::as_str);
                let reason = format!(
                    "({count} older entries were left out) {}",
                    reason.unwrap_or_default()
                );
                oldest.insert("reason".into(), reason.into());
            }
        }
        Value::Object(fields) => {
            let lists = fields.iter_mut().filter(|(_, it)| it.is_array());
            let Some((name, Value::Array(list))) = lists.max_by_key(|(_, it)| encoded_len(it))
            else {
                return;
            };
            let count = fewest(list.iter().rev(), over);
            list.truncate(list.len() - count);
            let reason = format!(
                "{count} entries of `{name}` were left out: the answer is too long; \
                 query one plugin at a time"
            );
            if let Some(Value::Array(problems)) = fields.get_mut("problems") {
                problems.push(json!({"package": "", "reason": reason}));
            }
        }
        _ => {}
    }
}

/// How many entries take at least `bytes` bytes.
fn fewest<'a>(entries: impl Iterator<Item = &'a Value>, bytes: usize) -> usize {
    let mut left = bytes;
    let mut count = 0;
    for entry in entries {
        if left == 0 {
            break;
        }
        left = left.saturating_sub(encoded_len(entry) + 1);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100_000;

    fn fitted(answer: &Value) -> Value {
        let text = fit(answer, LIMIT).unwrap();
        assert!(text.get().len() <= LIMIT, "{} bytes", text.get().len());
        serde_json::from_str(text.get()).unwrap()
    }

    #[test]
    fn a_reply_that_fits_stays_unchanged() {
        let answer = json!({"plugins": [{"reason": "x".repeat(50_000)}]});
        assert_eq!(fitted(&answer), answer);
    }

    #[test]
    fn long_texts_are_cut_before_short_ones() {
        let answer = json!({
            "plugins": [{"reason": "ä".repeat(1_000_000), "name": "y".repeat(15_000)}],
        });
        let fitted = fitted(&answer);
        let plugin = &fitted["plugins"][0];
        let reason = plugin["reason"].as_str().unwrap();
        assert!(reason.ends_with("… (cut; 2000000 bytes)"), "{reason}");
        assert_eq!(plugin["name"], answer["plugins"][0]["name"]);
    }

    #[test]
    fn the_oldest_history_entries_are_left_out() {
        let entry = |number| json!({"number": number, "reason": "r"});
        let answer: Value = (0..50_000).map(entry).collect();
        let fitted = fitted(&answer);
        let list = fitted.as_array().unwrap();
        assert_eq!(list.last(), answer.as_array().unwrap().last());
        let reason = list[0]["reason"].as_str().unwrap();
        let told = format!("({} older entries were left out) r", 50_000 - list.len());
        assert_eq!(reason, told);
    }

    #[test]
    fn a_status_says_what_it_leaves_out() {
        let plugins: Value = (0..50_000).map(|it| json!({"name": it})).collect();
        let answer = json!({"host": {"pid": 1}, "plugins": plugins, "problems": []});
        let fitted = fitted(&answer);
        let left = 50_000 - fitted["plugins"].as_array().unwrap().len();
        let reason = fitted["problems"][0]["reason"].as_str().unwrap();
        assert!(reason.starts_with(&format!("{left} entries of `plugins`")));
        assert_eq!(fitted["plugins"][0]["name"], 0);
    }
}
