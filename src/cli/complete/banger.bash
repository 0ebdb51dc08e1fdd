# bash completion for banger

_banger() {
    # The words as they were typed: COMP_WORDS is cut at every `:` and `=`, which names and paths here contain.
    local line="${COMP_LINE:0:COMP_POINT}" typed
    local -a words answer
    read -r -a words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    typed="${words[${#words[@]}-1]}"
    mapfile -t answer < <(command banger complete -- "${words[@]:1}" 2>/dev/null)

    # bash replaces only what follows the last character at which it cut.
    local cut="${typed%"${COMP_WORDS[COMP_CWORD]}"}"
    [[ ${COMP_WORDS[COMP_CWORD]} == [:=] ]] && cut="$typed"

    local candidate
    COMPREPLY=()
    for candidate in "${answer[@]}"; do
        candidate="${candidate%%$'\t'*}"
        case "$candidate" in
        :files)
            compopt -o filenames
            mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$typed")
            ;;
        *)
            [[ $candidate == *: ]] && compopt -o nospace
            COMPREPLY+=("${candidate#"$cut"}")
            ;;
        esac
    done
}

complete -F _banger banger
