# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: shell-completion.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: stand-in: installs completions for bash, zsh and fish

if [[ -z ${_SHELL_COMPLETION_ECLASS} ]]; then
_SHELL_COMPLETION_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

# @FUNCTION: newbashcomp
# @USAGE: <file> <command>
# @DESCRIPTION:
# Installs a completion for bash.
newbashcomp() {
	( insopts -m 0644; insinto /usr/share/bash-completion/completions; newins "$@" )
}

# @FUNCTION: dozshcomp
# @USAGE: <file>...
# @DESCRIPTION:
# Installs completions for zsh.
dozshcomp() {
	( insopts -m 0644; insinto /usr/share/zsh/site-functions; doins "$@" )
}

# @FUNCTION: dofishcomp
# @USAGE: <file>...
# @DESCRIPTION:
# Installs completions for fish.
dofishcomp() {
	( insopts -m 0644; insinto /usr/share/fish/vendor_completions.d; doins "$@" )
}

fi
