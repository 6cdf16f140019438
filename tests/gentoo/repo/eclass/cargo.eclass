# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: cargo.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @PROVIDES: rust
# @BLURB: stand-in: cargo with vendored crates, offline, with the user's flags
# @DESCRIPTION:
# Has the interface of the main repository's eclass as far as the overlay uses
# it, and treats flags as that one does: they arrive in the variable of the
# target, RUSTFLAGS itself is unset, and the target is named only in a cross build.

if [[ -z ${_CARGO_ECLASS} ]]; then
_CARGO_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

[[ -n ${CARGO_OPTIONAL} ]] && RUST_OPTIONAL=1

inherit multiprocessing rust toolchain-funcs

IUSE="debug"

# @ECLASS_VARIABLE: CRATES
# @DEFAULT_UNSET
# @PRE_INHERIT
# @DESCRIPTION:
# Crates to download one by one, as name@version.

# @ECLASS_VARIABLE: CARGO_OPTIONAL
# @DEFAULT_UNSET
# @PRE_INHERIT
# @DESCRIPTION:
# Set to get the functions without the dependencies and the phases.

# @ECLASS_VARIABLE: ECARGO_HOME
# @OUTPUT_VARIABLE
# @DESCRIPTION:
# Cargo's home directory during the build.
ECARGO_HOME=${WORKDIR}/cargo_home

# @ECLASS_VARIABLE: ECARGO_VENDOR
# @OUTPUT_VARIABLE
# @DESCRIPTION:
# Where the vendored crates lie.
ECARGO_VENDOR=${ECARGO_HOME}/gentoo

# @ECLASS_VARIABLE: CARGO_CRATE_URIS
# @OUTPUT_VARIABLE
# @DESCRIPTION:
# Where CRATES come from, for SRC_URI.
CARGO_CRATE_URIS=
for _cargo_crate in ${CRATES}; do
	CARGO_CRATE_URIS+="https://crates.io/api/v1/crates/${_cargo_crate%@*}/${_cargo_crate##*@}/download"
	CARGO_CRATE_URIS+=" -> ${_cargo_crate/@/-}.crate "
done
unset _cargo_crate

# @FUNCTION: cargo_gen_config
# @DESCRIPTION:
# Writes cargo's configuration: vendored crates, no network, as many jobs as
# the user allows.
cargo_gen_config() {
	mkdir -p "${ECARGO_VENDOR}" || die
	cat > "${ECARGO_HOME}"/config.toml <<-EOF || die
		[source.gentoo]
		directory = "${ECARGO_VENDOR}"

		[source.crates-io]
		replace-with = "gentoo"
		local-registry = "/nonexistent"

		[net]
		offline = true

		[build]
		jobs = $(makeopts_jobs)
		incremental = false

		[term]
		verbose = true
		color = "never"
	EOF
	export CARGO_HOME=${ECARGO_HOME}
	_CARGO_CONFIG_WRITTEN=1
}

# @FUNCTION: _cargo_needs_target
# @INTERNAL
# @DESCRIPTION:
# Whether cargo must be told a target: naming it even for a native build would
# keep the flags from build scripts.
_cargo_needs_target() {
	tc-is-cross-compiler
}

# @FUNCTION: cargo_target_dir
# @DESCRIPTION:
# Prints the directory that finished artifacts are in.
cargo_target_dir() {
	local abi=
	_cargo_needs_target && abi=/$(rust_abi)
	echo "${CARGO_TARGET_DIR:-target}${abi}/$(usex debug debug release)"
}

# @FUNCTION: _cargo_unpack_crate
# @USAGE: <file>
# @INTERNAL
# @DESCRIPTION:
# Unpacks one crate to where cargo finds it, with the checksum that it asks for.
_cargo_unpack_crate() {
	local sum
	tar -x -f "${DISTDIR}/$1" -C "${ECARGO_VENDOR}" || die
	sum=$(sha256sum "${DISTDIR}/$1") || die
	printf '{"package": "%s", "files": {}}' "${sum%% *}" \
		> "${ECARGO_VENDOR}/${1%.crate}/.cargo-checksum.json" || die
}

# @FUNCTION: cargo_src_unpack
# @DESCRIPTION:
# Unpacks the sources and the crates, then writes the configuration.
cargo_src_unpack() {
	mkdir -p "${ECARGO_VENDOR}" || die
	local archive
	for archive in ${A}; do
		if [[ ${archive} == *.crate ]]; then
			_cargo_unpack_crate "${archive}"
		else
			unpack "${archive}"
		fi
	done
	cargo_gen_config
}

# @FUNCTION: cargo_live_src_unpack
# @DESCRIPTION:
# Vendors the crates of a live package into ECARGO_VENDOR.
cargo_live_src_unpack() {
	[[ ${PV} == *9999* ]] || die "${FUNCNAME} is for live ebuilds only"
	mkdir -p "${ECARGO_VENDOR}" || die
	pushd "${S}" > /dev/null || die
	CARGO_HOME=${ECARGO_REGISTRY_DIR:-${ECARGO_HOME}} \
		"${CARGO}" vendor ${EVCS_OFFLINE:+--offline} "${ECARGO_VENDOR}" > /dev/null || die
	popd > /dev/null || die
	cargo_gen_config
}

# @FUNCTION: cargo_src_configure
# @USAGE: [<cargo-option>...]
# @DESCRIPTION:
# Remembers options for the later phases, and the array myfeatures as features.
cargo_src_configure() {
	[[ -v myfeatures ]] || local -a myfeatures=()
	readonly ECARGO_ARGS=( ${myfeatures[@]/#/--features } "$@" )
}

# @FUNCTION: cargo_env
# @USAGE: <command> [<argument>...]
# @DESCRIPTION:
# Runs a command with the compiler flags where cargo finds them.
cargo_env() {
	[[ -n ${_CARGO_CONFIG_WRITTEN} ]] || die "cargo_gen_config must run before ${FUNCNAME}"
	tc-export AR CC
	local triple linker flags
	triple=$(rust_abi)
	read -ra linker <<< "$(tc-getCC) ${LDFLAGS}"
	flags="-C strip=none -C linker=${linker[0]} -C target-feature=-crt-static"
	(( ${#linker[@]} > 1 )) && flags+=$(printf -- ' -C link-arg=%s' "${linker[@]:1}")
	flags+=" ${RUSTFLAGS}"
	local variable=${triple//-/_}
	variable=CARGO_TARGET_${variable^^}_RUSTFLAGS
	(
		export "${variable}=${!variable} ${flags}"
		export CARGO_BUILD_TARGET=${triple}
		_cargo_needs_target || unset CARGO_BUILD_TARGET
		unset CARGO_BUILD_RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTFLAGS
		"$@"
	)
}

# @FUNCTION: cargo_src_compile
# @USAGE: [<cargo-option>...]
# @DESCRIPTION:
# Runs cargo build.
cargo_src_compile() {
	set -- "${CARGO}" build $(usex debug "" --release) "${ECARGO_ARGS[@]}" "$@"
	einfo "$*"
	cargo_env "$@" || die "cargo build failed"
}

# @FUNCTION: cargo_src_test
# @USAGE: [<cargo-option>...]
# @DESCRIPTION:
# Runs cargo test.
cargo_src_test() {
	set -- "${CARGO}" test $(usex debug "" --release) "${ECARGO_ARGS[@]}" "$@"
	einfo "$*"
	cargo_env "$@" || die "cargo test failed"
}

# @FUNCTION: cargo_src_install
# @USAGE: [<cargo-option>...]
# @DESCRIPTION:
# Runs cargo install into the image.
cargo_src_install() {
	set -- "${CARGO}" install --path . --root "${ED}/usr" \
		$(usex debug --debug "") "${ECARGO_ARGS[@]}" "$@"
	einfo "$*"
	cargo_env "$@" || die "cargo install failed"
	rm -f "${ED}"/usr/.crates{.toml,2.json} || die
}

fi

if [[ -z ${CARGO_OPTIONAL} ]]; then
	EXPORT_FUNCTIONS src_unpack src_configure src_compile src_install src_test
fi
