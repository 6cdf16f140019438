//! Holds what a plugin says of its methods against what they answer.

use std::sync::Arc;

use hotmerge_abi as abi;

use super::{refused::Refused, request::Request, running::Running};
use crate::{Method, Plugin, answer::Answer};

/// Panics with all that is not as described.
pub(super) fn check<P: Plugin>(plugin: &Arc<Running<P>>) {
    let mut problems = Vec::new();
    if call(plugin, "no-such-method", b"", "")
        .map_or_else(|refused| refused.status, |_| abi::STATUS_OK)
        != abi::STATUS_NO_METHOD
    {
        problems.push("it does not refuse a method that it does not have".to_owned());
    }
    for method in plugin.plugin().describe() {
        check_method(plugin, method, &mut problems);
    }
    assert!(
        problems.is_empty(),
        "the plugin is not as it describes itself:\n{}",
        problems.join("\n")
    );
}

fn check_method<P: Plugin>(plugin: &Arc<Running<P>>, method: &Method, problems: &mut Vec<String>) {
    let name = method.name;
    let request = method.example.unwrap_or_default().as_bytes();
    let described = method.reply.content_types;
    let any = ("*/*", described);
    let each = described
        .iter()
        .map(|one| (*one, std::slice::from_ref(one)));
    for (accept, expected) in std::iter::once(any).chain(each) {
        match call(plugin, name, request, accept) {
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

fn call<P: Plugin>(
    plugin: &Arc<Running<P>>,
    method: &str,
    request: &[u8],
    accept: &str,
) -> Result<Answer, Refused> {
    Request::new(plugin, method)
        .body(request)
        .media("", accept)
        .call()
}
