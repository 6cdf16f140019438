#!/bin/bash
# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2
# shellcheck disable=SC2016,SC2034 # read by eclasses; written into scripts

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/tests-common.sh"
inherit hotmerge-plugin

# --- Building

# A driver that shows how it was called.
fake_driver() {
	cat > "${BROOT}/usr/bin/cargo-hotmerge" <<-'END'
		#!/bin/bash
		echo "arguments: $*"
		echo "flags: ${CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS-unset}"
		echo "RUSTFLAGS: ${RUSTFLAGS-unset}"
		echo "target: ${CARGO_BUILD_TARGET-unset}"
	END
	chmod +x "${BROOT}/usr/bin/cargo-hotmerge"
	cargo_gen_config
}

builds_offline_into_staging() {
	fake_driver
	expect "arguments: hotmerge build-plugins --manifest-path ${S}/Cargo.toml --staging ${WORKDIR}/hotmerge-staging --offline --locked --notify never" \
		hotmerge-plugin_src_compile
}
it "builds offline, from the lock file, into staging, and tells nobody" builds_offline_into_staging

builds_the_named_plugins() {
	fake_driver
	HOTMERGE_PLUGINS=( one two )
	expect "--plugin=one --plugin=two --verbose" hotmerge-plugin_src_compile --verbose
}
it "builds only the plugins that the ebuild names, with its options" builds_the_named_plugins

keeps_flags() {
	fake_driver
	export RUSTFLAGS="-C target-cpu=native"
	LDFLAGS="-Wl,-O1"
	expect "-C link-arg=-Wl,-O1" hotmerge-plugin_src_compile || return
	expect "-C target-cpu=native" hotmerge-plugin_src_compile || return
	expect "RUSTFLAGS: unset" hotmerge-plugin_src_compile
}
it "keeps the user's flags, where cargo merges them" keeps_flags

builds_natively() {
	fake_driver
	expect "target: unset" hotmerge-plugin_src_compile
}
it "names no target in a native build" builds_natively

cross_builds() {
	fake_driver
	CHOST=aarch64-unknown-linux-gnu
	expect "target: aarch64-unknown-linux-gnu" hotmerge-plugin_src_compile
}
it "names the target in a cross build, and runs the build machine's driver" cross_builds

refuses_without_driver() {
	rm -f "${BROOT}/usr/bin/cargo-hotmerge"
	cargo_gen_config
	local output
	output=$(hotmerge-plugin_src_compile 2>&1) && return 1
	[[ ${output} == *"cargo-hotmerge is missing"*"USE=driver"* ]]
}
it "says what to do if there is no driver" refuses_without_driver

# --- Installing

installs_packages() {
	LIBDIR=lib
	mkdir -p "${HOTMERGE_STAGING}"/{one,two}
	touch "${HOTMERGE_STAGING}"/{one/libone.so,one/plugin.meta,two/libtwo.so,two/plugin.meta}
	hotmerge-plugin_src_install
	[[ -x ${ED}/usr/lib/hotmerge/plugins/one/libone.so ]] &&
		[[ -f ${ED}/usr/lib/hotmerge/plugins/one/plugin.meta ]] &&
		[[ ! -x ${ED}/usr/lib/hotmerge/plugins/two/plugin.meta ]] &&
		[[ -x ${ED}/usr/lib/hotmerge/plugins/two/libtwo.so ]]
}
it "installs each package into a directory of its own below the libdir" installs_packages

remembers_names() {
	mkdir -p "${HOTMERGE_STAGING}/pack"
	touch "${HOTMERGE_STAGING}/pack/libone.so"
	printf '# heading\nformat = 1\n\n[[plugin]]\nname = "one"\nversion = "1.0.0"\n[[plugin.requires]]\nname = "other"\n[[plugin]]\nname = "two"\n' \
		> "${HOTMERGE_STAGING}/pack/plugin.meta"
	hotmerge-plugin_src_install
	[[ ${_HOTMERGE_INSTALLED[*]} == "one two" ]]
}
it "remembers the names of the plugins that it installed" remembers_names

refuses_empty_staging() {
	rm -rf "${HOTMERGE_STAGING}"
	! (hotmerge-plugin_src_install)
}
it "refuses to install when nothing was staged" refuses_empty_staging

# --- Telling

# A machine with a host that a service manager has started; each test changes one thing.
MANAGER=openrc STARTED=true CHROOT=false
_hotmerge-plugin_in_chroot() { ${CHROOT}; }
_hotmerge-plugin_manager() { echo "${MANAGER}"; }
rc-service() {
	case $* in
		"--quiet hotmerge status") ${STARTED} ;;
		"--quiet --ifstarted hotmerge reload") echo openrc >> "${T}/told"; return "${RELOADS:-0}" ;;
		*) echo "rc-service does not know $*" >> "${T}/told"; return 2 ;;
	esac
}
systemctl() {
	case $* in
		"--quiet is-active hotmerge.service") ${STARTED} ;;
		"try-reload-or-restart hotmerge.service") echo systemd >> "${T}/told"; return "${RELOADS:-0}" ;;
		*) echo "systemctl does not know $*" >> "${T}/told"; return 2 ;;
	esac
}

# fake_host STATUS RELOAD: a prefix with a host's program that ends with these codes.
fake_host() {
	EPREFIX=${SCRATCH}/prefix
	mkdir -p "${EPREFIX}/usr/bin"
	cat > "${EPREFIX}/usr/bin/hotmerge" <<-END
		#!/bin/bash
		[[ \$1 == status ]] && exit $1
		echo "host: \$*" | tee -a "${T}/told"
		exit $2
	END
	chmod +x "${EPREFIX}/usr/bin/hotmerge"
}

# Who was told, one a line, after pkg_postinst has succeeded.
told() {
	: > "${T}/told"
	hotmerge-plugin_pkg_postinst > "${T}/said" 2>&1 || { echo "pkg_postinst failed"; return 1; }
	cat "${T}/told"
}

# Says why in one line, and tells nobody.
expect_silence() {
	[[ -z $(told) && $(< "${T}/said") == "elog: No hotmerge host was told of greeter: $1" ]] && return
	cat "${T}/said" "${T}/told"
	return 1
}

tells_openrc() { [[ $(told) == openrc* ]]; }
it "tells a host under OpenRC" tells_openrc

tells_systemd() { MANAGER=systemd; [[ $(told) == systemd* ]]; }
it "tells a host under systemd" tells_systemd

tells_after_removal() {
	REPLACED_BY_VERSION=""
	: > "${T}/told"
	hotmerge-plugin_pkg_postrm > /dev/null
	[[ $(< "${T}/told") == openrc* ]]
}
it "tells the host of a removal" tells_after_removal

waits_for_successor() { REPLACED_BY_VERSION=2; [[ -z $(hotmerge-plugin_pkg_postrm) ]]; }
it "leaves an upgrade to the version that replaces this one" waits_for_successor

opts_out() {
	EROOT=${SCRATCH}/root
	mkdir -p "${EROOT}/etc/hotmerge"
	touch "${EROOT}/etc/hotmerge/no-notify"
	expect_silence "${EROOT}/etc/hotmerge/no-notify says so."
}
it "tells nobody if the user says so" opts_out

other_root() { ROOT=/mnt/target; expect_silence "this is a merge for /mnt/target."; }
it "tells nobody of a merge for another ROOT" other_root

in_chroot() { CHROOT=true; expect_silence "this is a chroot."; }
it "tells nobody from a chroot" in_chroot

not_started() { STARTED=false; expect_silence "the hotmerge service is not started."; }
it "tells nobody if OpenRC has not started the host" not_started

not_active() { MANAGER=systemd STARTED=false; expect_silence "hotmerge.service is not active."; }
it "tells nobody if systemd has not started the host" not_active

no_manager() { MANAGER=""; expect_silence "this system runs neither systemd nor OpenRC."; }
it "tells nobody if there is no service manager" no_manager

tells_prefix() {
	MANAGER=prefix
	fake_host 0 0
	_HOTMERGE_INSTALLED=( one two )
	[[ $(told) == "host: reload --runtime-dir ${EPREFIX}/run/hotmerge -- one two" ]]
}
it "asks the host of a prefix to take the installed plugins" tells_prefix

prefix_without_host() { MANAGER=prefix; fake_host 4 4; expect_silence "none runs in ${EPREFIX}."; }
it "tells nobody if no host runs in the prefix" prefix_without_host

prefix_without_program() { MANAGER=prefix EPREFIX=${SCRATCH}/none; expect_silence "none runs in ${EPREFIX}."; }
it "tells nobody if the prefix has no host at all" prefix_without_program

# --- What came of it

refused() {
	fake_host 0 5
	told > /dev/null
	grep -q "ewarn: Run 'hotmerge status'" "${T}/said" && grep -q "host: reload" "${T}/said"
}
it "warns, shows what the host says, and succeeds if the host refuses the plugin" refused

others_refused() {
	fake_host 0 0
	RELOADS=1
	told > /dev/null
	! grep -q ewarn "${T}/said"
}
it "does not warn if the host refuses another package's plugin" others_refused

no_verdict() {
	fake_host 0 4
	RELOADS=1
	told > /dev/null
	grep -q ewarn "${T}/said"
}
it "believes the service manager if the host cannot be asked" no_verdict

finish
