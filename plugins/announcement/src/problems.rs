//! Everything that is wrong with an input, one line per field.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Error;

/// One sentence per problem, which begins with the field.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<String>);

type Judged = Result<String, String>;

impl Problems {
    pub(crate) fn required(
        &mut self,
        field: &str,
        value: &Value,
        judge: impl FnOnce(&str) -> Judged,
    ) -> String {
        if value.is_null() {
            return self.add(field, "is missing");
        }
        self.optional(field, value, judge)
    }

    pub(crate) fn optional(
        &mut self,
        field: &str,
        value: &Value,
        judge: impl FnOnce(&str) -> Judged,
    ) -> String {
        match typed::<Option<String>>(value, "a string") {
            Ok(None) => String::new(),
            Ok(Some(text)) => judge(&text).unwrap_or_else(|reason| self.add(field, reason)),
            Err(reason) => self.add(field, reason),
        }
    }

    pub(crate) fn required_list(
        &mut self,
        field: &str,
        value: &Value,
        judge: impl Fn(&str) -> Judged,
    ) -> Vec<String> {
        if value.is_null() {
            return self.add(field, "is missing (an empty list is `[]`)");
        }
        self.optional_list(field, value, judge)
    }

    pub(crate) fn optional_list(
        &mut self,
        field: &str,
        value: &Value,
        judge: impl Fn(&str) -> Judged,
    ) -> Vec<String> {
        match typed::<Option<Vec<Value>>>(value, "a list of strings") {
            Ok(items) => items
                .unwrap_or_default()
                .iter()
                .enumerate()
                .map(|(index, item)| self.required(&format!("{field}[{index}]"), item, &judge))
                .collect(),
            Err(reason) => self.add(field, reason),
        }
    }

    pub(crate) fn add<T: Default>(&mut self, field: &str, reason: impl fmt::Display) -> T {
        self.0.push(format!("`{field}` {reason}"));
        T::default()
    }

    /// `value` if nothing is wrong.
    pub(crate) fn conclude<T>(self, value: T) -> Result<T, Error> {
        if self.0.is_empty() {
            Ok(value)
        } else {
            Err(Error::BadRequest(self.0.join("\n")))
        }
    }
}

pub(crate) fn typed<T: DeserializeOwned>(value: &Value, expected: &str) -> Result<T, String> {
    serde_json::from_value(value.clone()).map_err(|_| format!("must be {expected}"))
}
