//! Real `emerge` against a really running host.
//!
//! Each test has a lab of its own (`scripts/portage-lab`). Most are in root mode: a system
//! with Gentoo's paths, Portage's own user and OpenRC, in name spaces of its own, so that what
//! is shown is what a user of Gentoo gets. Without root only the tests of a prefix run, and
//! the others say that they did not.
//!
//! Events are awaited: when `emerge` returns, `pkg_postinst` has asked the host what came of it.

mod announcements;
mod answers;
mod artifacts;
mod binary;
mod calls;
mod contracts;
mod document;
mod lab;
mod labs;
mod licences;
mod news;
mod overlay;
mod packages;
mod prefix;
mod quiet;
mod services;
mod signing;
mod systemd;
mod traces;
mod upgrades;
