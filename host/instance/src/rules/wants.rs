//! What a plugin requests in its `plugin.meta`, compared with what the operator grants.
//!
//! Invariant: asking changes nothing. Only the configuration grants.

use std::path::Path;

use hotmerge_meta::Wants;
use hotmerge_sandbox::Grant;

use crate::settings::Isolation;

/// Its requests that are not granted: `fs:/path` or `net`. In the host's own process it has
/// all rights of the host.
pub fn not_granted(wants: &Wants, grants: &[Grant], isolation: Isolation) -> Vec<String> {
    if isolation == Isolation::Host {
        return Vec::new();
    }
    let has = |wanted: &&String| {
        grants.iter().any(|grant| match grant {
            Grant::Files { path, .. } => Path::new(wanted).starts_with(path),
            Grant::Network => false,
        })
    };
    let files = wants.fs.iter().filter(|path| !has(path));
    let mut asked: Vec<_> = files.map(|path| format!("fs:{path}")).collect();
    if wants.net && !grants.contains(&Grant::Network) {
        asked.push("net".to_owned());
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_a_granted_tree_are_granted() {
        let wants = Wants {
            fs: ["/srv", "/srv/a", "/srv/ab"].map(str::to_owned).into(),
            net: true,
        };
        let asked = |grants: &[&str], isolation| {
            let grants: Vec<_> = grants.iter().map(|text| text.parse().unwrap()).collect();
            not_granted(&wants, &grants, isolation)
        };
        let process = Isolation::Process;
        assert_eq!(asked(&["fs:/srv:rw", "net"], process), [""; 0]);
        let some = asked(&["fs:/srv/a:ro"], process);
        assert_eq!(some, ["fs:/srv", "fs:/srv/ab", "net"]);
        assert_eq!(asked(&[], Isolation::Host), [""; 0]);
    }
}
