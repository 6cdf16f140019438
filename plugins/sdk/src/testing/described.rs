//! Holds what a plugin says of its methods against what they answer.

use hotmerge_abi as abi;

use super::Instance;
use crate::{Method, Plugin};

/// Panics with all that is not as described.
pub(super) fn check<P: Plugin>(plugin: &Instance<P>) {
    let mut problems = Vec::new();
    if plugin
        .call("no-such-method", b"")
        .map_or_else(|refused| refused.status, |_| abi::STATUS_OK)
        != abi::STATUS_NO_METHOD
    {
        problems.push("it does not refuse a method that it does not have".to_owned());
    }
    for method in plugin.running.plugin().describe() {
        check_method(plugin, method, &mut problems);
    }
    assert!(
        problems.is_empty(),
        "the plugin is not as it describes itself:\n{}",
        problems.join("\n")
    );
}

fn check_method<P: Plugin>(plugin: &Instance<P>, method: &Method, problems: &mut Vec<String>) {
    let name = method.name;
    let request = method.example.unwrap_or_default().as_bytes();
    let described = method.reply.content_types;
    let any = ("*/*", described);
    let each = described
        .iter()
        .map(|one| (*one, std::slice::from_ref(one)));
    for (accept, expected) in std::iter::once(any).chain(each) {
        match plugin.call_media(name, request, "", accept) {
            Err(refused) if refused.status == abi::STATUS_NO_METHOD => {
                problems.push(format!("`{name}`: there is no such method"));
                return;
            }
            Err(refused) if method.example.is_some() => problems.push(format!(
                "`{name}`: the example fails with `Accept: {accept}`: {}",
                refused.reason
            )),
            Ok(answer)
                if !expected.is_empty() && !expected.contains(&answer.content_type.as_str()) =>
            {
                problems.push(format!(
                    "`{name}`: the reply is `{}`, described with `Accept: {accept}` is `{}`",
                    answer.content_type,
                    expected.join("`, `")
                ));
            }
            _ => {}
        }
    }
}
