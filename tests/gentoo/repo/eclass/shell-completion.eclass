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

# @FUNCTION: newzshcomp
# @USAGE: <file> <name>
# @DESCRIPTION:
# Installs a completion for zsh.
newzshcomp() {
	( insopts -m 0644; insinto /usr/share/zsh/site-functions; newins "$@" )
}

# @FUNCTION: newfishcomp
# @USAGE: <file> <name>
# @DESCRIPTION:
# Installs a completion for fish.
newfishcomp() {
	( insopts -m 0644; insinto /usr/share/fish/vendor_completions.d; newins "$@" )
}

fi
