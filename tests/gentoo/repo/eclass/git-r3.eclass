# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: git-r3.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: stand-in: clones a repository for a live ebuild

if [[ -z ${_GIT_R3_ECLASS} ]]; then
_GIT_R3_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

PROPERTIES="live"
BDEPEND="dev-vcs/git"

# @ECLASS_VARIABLE: EGIT_REPO_URI
# @REQUIRED
# @DESCRIPTION:
# Where to clone from. A user's EGIT_OVERRIDE_REPO_<OWNER>_<NAME> comes first.

# @FUNCTION: git-r3_src_unpack
# @DESCRIPTION:
# Clones the repository into WORKDIR/P.
git-r3_src_unpack() {
	local name=${EGIT_REPO_URI#*://*/}
	name=${name%.git}
	name=EGIT_OVERRIDE_REPO_${name//[^a-zA-Z0-9_]/_}
	local uri=${!name}
	[[ -n ${uri} ]] || name=${name^^} uri=${!name:-${EGIT_REPO_URI}}
	git -c safe.directory='*' clone --quiet --depth 1 "${uri}" "${WORKDIR}/${P}" || die
}

fi

EXPORT_FUNCTIONS src_unpack
