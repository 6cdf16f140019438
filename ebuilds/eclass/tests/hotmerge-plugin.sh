#!/bin/bash
# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2
# shellcheck disable=SC2016,SC2034 # read by eclasses; written into scripts

# shellcheck source-path=SCRIPTDIR
source "$(dirname -- "${BASH_SOURCE[0]}")/tests-common.sh"

# Before all others: what an eclass depends on cannot be changed once it is inherited.
asks_for_the_interface() {
	local output
	output=$(HOTMERGE_ABI=$1; inherit hotmerge-plugin 2>&1) && return 1
	[[ ${output} == *"HOTMERGE_ABI must be"* ]]
}
wants_an_interface() { asks_for_the_interface ""; }
it "wants to know the plugin interface" wants_an_interface
wants_a_number() { asks_for_the_interface 1.1; }
it "wants the major version of the interface alone" wants_a_number

compares_versions() {
	ver_test 1.95.0 -ge 1.95.0 && ver_test 1.100.0 -gt 1.95.0 && ver_test 1.9 -lt 1.10 && ! ver_test 2 -le 1.9
}
it "compares versions as the package manager does" compares_versions

HOTMERGE_ABI=1
inherit hotmerge-plugin

# --- Depending

depends_on_the_interface() { [[ " ${RDEPEND} " == *" app-admin/hotmerge:0/1 "* ]]; }
it "depends on the host of the plugins' own interface" depends_on_the_interface

# --- Building

# A driver that shows how it was called, and stages plugins of an interface.
fake_driver() {
	mkdir -p "${HOTMERGE_STAGING}/pack"
	printf '[[plugin]]\nname = "one"\nabi = "%s"\n[[plugin]]\nname = "two"\nabi = "%s"\n' \
		"${1:-1.1}" "${2:-1.1}" > "${HOTMERGE_STAGING}/pack/plugin.meta"
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

takes_any_minor_version() {
	fake_driver 1.0 1.7
	expect "arguments:" hotmerge-plugin_src_compile
}
it "takes plugins of every minor version of the interface" takes_any_minor_version

refuses_another_interface() {
	fake_driver 1.1 2.0
	local output
	output=$(hotmerge-plugin_src_compile 2>&1) && return 1
	[[ ${output} == *"die: "*"built for plugin interface 2, but HOTMERGE_ABI is 1"* ]]
}
it "refuses plugins of an interface that the package does not depend on" refuses_another_interface

refuses_nothing() {
	fake_driver
	rm -r "${HOTMERGE_STAGING}"
	local output
	output=$(hotmerge-plugin_src_compile 2>&1) && return 1
	[[ ${output} == *"die: src_compile staged nothing"* ]]
}
it "refuses a build that staged nothing" refuses_nothing

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

# A program that shows how it was called, generates what it should, and checks as it is told.
fake_announcer() {
	rm -rf "${ED:?}/usr" "${T}/announcement"
	cat > "${BROOT}/usr/bin/hotmerge-announce" <<-END
		#!/bin/bash
		echo "arguments: \$*"
		[[ \$1 == release ]] || exit $1
		mkdir -p "\${!#}" && touch "\${!#}"/{ANNOUNCEMENT.md,feed-entry.xml}
	END
	chmod +x "${BROOT}/usr/bin/hotmerge-announce"
}

installs_the_announcement() {
	fake_announcer 0
	expect "arguments: release files/NEWS.toml --out ${T}/announcement" \
		hotmerge-plugin_doannouncement files/NEWS.toml || return
	[[ -f ${ED}/usr/share/doc/${PF}/ANNOUNCEMENT.md && -f ${ED}/usr/share/doc/${PF}/feed-entry.xml ]] || return
	expect "arguments: release ANNOUNCEMENT.toml --out" hotmerge-plugin_doannouncement
}
it "installs what is generated of an announcement as documentation" installs_the_announcement

refuses_a_bad_announcement() {
	fake_announcer 1
	local output
	output=$(hotmerge-plugin_doannouncement 2>&1) && return 1
	[[ ${output} == *"die: the announcement breaks rules"* && ! -e ${ED}/usr/share/doc ]]
}
it "fails a build whose announcement breaks rules" refuses_a_bad_announcement

names_the_missing_announcer() {
	rm -f "${BROOT}/usr/bin/hotmerge-announce"
	local output
	output=$(hotmerge-plugin_doannouncement 2>&1) && return 1
	[[ ${output} == *"add app-admin/hotmerge-announce-cli to BDEPEND"* ]]
}
it "says what an announcement needs" names_the_missing_announcer

signs_if_told() {
	LIBDIR=lib
	rm -rf "${HOTMERGE_STAGING}" "${ED:?}/usr"
	mkdir -p "${HOTMERGE_STAGING}/one"
	touch "${HOTMERGE_STAGING}"/one/{libone.so,plugin.meta}
	cat > "${BROOT}/usr/bin/cargo-hotmerge" <<-'END'
		#!/bin/bash
		echo "arguments: $*"
		echo signed > "${!#}/one/plugin.meta.minisig"
	END
	chmod +x "${BROOT}/usr/bin/cargo-hotmerge"
	hotmerge-plugin_src_install
	[[ ! -e ${ED}/usr/lib/hotmerge/plugins/one/plugin.meta.minisig ]] || return
	HOTMERGE_SIGN_KEY="/etc/a key" HOTMERGE_SIGN_PASSWORD_FILE=/etc/password
	expect "arguments: hotmerge sign --key /etc/a key --password-file /etc/password ${HOTMERGE_STAGING}" \
		hotmerge-plugin_src_install || return
	[[ -f ${ED}/usr/lib/hotmerge/plugins/one/plugin.meta.minisig ]] || return
	unset HOTMERGE_SIGN_PASSWORD_FILE
	expect "arguments: hotmerge sign --key /etc/a key ${HOTMERGE_STAGING}" hotmerge-plugin_src_install
}
it "signs packages if the user has a key, and installs the signatures" signs_if_told

fails_unsigned() {
	rm -rf "${HOTMERGE_STAGING}"
	mkdir -p "${HOTMERGE_STAGING}/one"
	touch "${HOTMERGE_STAGING}"/one/{libone.so,plugin.meta}
	printf '#!/bin/bash\nexit 1\n' > "${BROOT}/usr/bin/cargo-hotmerge"
	chmod +x "${BROOT}/usr/bin/cargo-hotmerge"
	HOTMERGE_SIGN_KEY=/etc/key
	local output
	output=$(hotmerge-plugin_src_install 2>&1) && return 1
	[[ ${output} == *"die: cargo-hotmerge sign failed"* ]]
}
it "fails a build that cannot be signed" fails_unsigned

remembers_names() {
	rm -rf "${HOTMERGE_STAGING}"
	mkdir -p "${HOTMERGE_STAGING}/pack"
	touch "${HOTMERGE_STAGING}/pack/libone.so"
	printf '# heading\nformat = 1\n\n[[plugin]]\nname = "one"\nversion = "1.0.0"\n[[plugin.requires]]\nname = "other"\n[[plugin]]\nname = "two"\n' \
		> "${HOTMERGE_STAGING}/pack/plugin.meta"
	hotmerge-plugin_src_install
	[[ ${_HOTMERGE_INSTALLED[*]} == "one two" && ${_HOTMERGE_PACKAGES[*]} == pack ]]
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
_hotmerge-service_in_chroot() { ${CHROOT}; }
hotmerge-service_manager() { echo "${MANAGER}"; }
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
		"show --property=ExecStart hotmerge.service") echo "ExecStart={ argv[]=/usr/bin/hotmerge serve ${OPTIONS-} ; ignore_errors=no }" ;;
		"try-reload-or-restart hotmerge.service") echo systemd >> "${T}/told"; return "${RELOADS:-0}" ;;
		*) echo "systemctl does not know $*" >> "${T}/told"; return 2 ;;
	esac
}
# The real one knows no functions.
timeout() { echo "$1" >> "${T}/limits"; shift; "$@"; }

# fake_host STATUS RELOAD [LINE...]: a host's program that ends with these codes, and says this.
fake_host() {
	EPREFIX=${SCRATCH}/prefix EROOT=${SCRATCH}/prefix
	rm -rf "${EPREFIX}"
	mkdir -p "${EPREFIX}/usr/bin"
	cat > "${EPREFIX}/usr/bin/hotmerge" <<-END
		#!/bin/bash
		[[ \$1 == status ]] && { echo '{"host":{"position":17,"pid":1},"plugins":[]}'; exit $1; }
		echo "host: \$*" >> "${T}/told"
		printf '%s\n' $(printf '%q ' "${@:3}")
		exit $2
	END
	chmod +x "${EPREFIX}/usr/bin/hotmerge"
}

# Who was notified, one per line, after pkg_postinst has succeeded.
told() {
	: > "${T}/told"
	hotmerge-plugin_pkg_postinst > "${T}/said" 2>&1 || { echo "pkg_postinst failed"; return 1; }
	cat "${T}/told"
}

# Says why in one line, and tells nobody.
expect_silence() {
	[[ -z $(told) && $(< "${T}/said") == "elog: No hotmerge host was notified of greeter: $1" ]] && return
	cat "${T}/said" "${T}/told"
	return 1
}

tells_openrc() { [[ $(told) == openrc* ]]; }
it "has OpenRC tell a host that cannot be asked" tells_openrc

tells_systemd() { MANAGER=systemd; [[ $(told) == systemd* ]]; }
it "has systemd tell a host that cannot be asked" tells_systemd

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

asks_for_its_own() {
	fake_host 0 0
	_HOTMERGE_INSTALLED=( one two ) _HOTMERGE_PACKAGES=( pack )
	hotmerge-plugin_pkg_preinst
	[[ $(told) == "host: reload --runtime-dir ${EPREFIX}/run/hotmerge --brief --timeout 8 --since 17 --package=pack -- one two" ]]
}
it "asks the host once, for the installed plugins, since before the merge" asks_for_its_own

asks_after_removal() {
	fake_host 0 0
	_HOTMERGE_INSTALLED=( one two ) _HOTMERGE_PACKAGES=( pack ) REPLACED_BY_VERSION=""
	: > "${T}/told"
	hotmerge-plugin_pkg_prerm
	hotmerge-plugin_pkg_postrm > /dev/null
	[[ $(< "${T}/told") == *"--since 17 --removed -- one two" ]]
}
it "asks the host of a removal for the removed plugins" asks_after_removal

finds_host_of_openrc() {
	fake_host 0 0
	EROOT=${SCRATCH}/eroot
	mkdir -p "${EROOT}/etc/conf.d"
	echo 'hotmerge_runtime_dir="/srv/run"' > "${EROOT}/etc/conf.d/hotmerge"
	[[ $(told) == "host: reload --runtime-dir /srv/run "* ]]
}
it "asks the host where conf.d puts it" finds_host_of_openrc

finds_host_of_systemd() {
	fake_host 0 0
	MANAGER=systemd OPTIONS="--config /etc/x --runtime-dir /srv/run --log info"
	[[ $(told) == "host: reload --runtime-dir /srv/run "* ]]
}
it "asks the host where the unit puts it" finds_host_of_systemd

finds_configuration() {
	[[ $(hotmerge-service_config) == "${EPREFIX}/etc/hotmerge/hotmerge.toml" ]] || return 1
	EROOT=${SCRATCH}/eroot
	mkdir -p "${EROOT}/etc/conf.d"
	echo 'hotmerge_config="/srv/other.toml"' > "${EROOT}/etc/conf.d/hotmerge"
	[[ $(hotmerge-service_config) == /srv/other.toml ]] || return 1
	MANAGER=systemd OPTIONS="--config /etc/x --runtime-dir /srv/run"
	[[ $(hotmerge-service_config) == /etc/x ]]
}
it "finds the configuration where conf.d or the unit puts it" finds_configuration

waits_for_seconds() {
	: > "${T}/limits"
	fake_host 0 4
	hotmerge-plugin_pkg_preinst
	told > /dev/null
	awk '{ sum += $1 } END { exit !(NR && sum <= 10) }' "${T}/limits"
}
it "waits a few seconds at most" waits_for_seconds

tells_prefix() {
	MANAGER=prefix
	fake_host 0 0
	[[ $(told) == "host: reload --runtime-dir ${EPREFIX}/run/hotmerge "* ]]
}
it "asks the host of a prefix" tells_prefix

prefix_that_hangs() { MANAGER=prefix; fake_host 124 1; [[ $(told) == "host: reload"* ]]; }
it "does not take a prefix's host that hangs for none" prefix_that_hangs

prefix_without_host() { MANAGER=prefix; fake_host 4 4; expect_silence "none runs in ${EPREFIX}."; }
it "tells nobody if no host runs in the prefix" prefix_without_host

prefix_without_program() { MANAGER=prefix EPREFIX=${SCRATCH}/none; expect_silence "none runs in ${EPREFIX}."; }
it "tells nobody if the prefix has no host at all" prefix_without_program

# --- The result

shows_success() {
	fake_host 0 0 "one 2.0: reloaded"
	told > /dev/null
	grep -q "einfo:   one 2.0: reloaded" "${T}/said" && ! grep -q ewarn "${T}/said"
}
it "shows what the host did" shows_success

refused() {
	fake_host 0 5 "one 2.0: refused: it is Monday" "hotmerge: 1 plugin refused"
	told > /dev/null
	grep -q "ewarn:   one 2.0: refused: it is Monday" "${T}/said" &&
		grep -q "ewarn: Run '${EPREFIX}/usr/bin/hotmerge status --runtime-dir ${EPREFIX}/run/hotmerge'" "${T}/said"
}
it "names plugin and reason, and succeeds, if the host refuses the plugin" refused

hangs() {
	fake_host 0 1 "hotmerge: the host did not answer within 8000 ms"
	told > /dev/null
	[[ $(wc -l < "${T}/told") == 1 ]] &&
		grep -q "ewarn:   hotmerge: the host did not answer within 8000 ms" "${T}/said" &&
		grep -q "ewarn: The package is merged" "${T}/said" && ! grep -q "refused" "${T}/said"
}
it "asks a host that does not answer once, and claims nothing of it" hangs

manager_fails() {
	fake_host 0 4
	RELOADS=5
	told > /dev/null
	grep -q "eend: The result is unknown" "${T}/said"
}
it "takes no exit code of a service manager's for a refusal" manager_fails

advises_default() {
	[[ $(_hotmerge-plugin_advice) == "hotmerge status" ]]
}
it "advises the shortest command that finds the host" advises_default

finish
