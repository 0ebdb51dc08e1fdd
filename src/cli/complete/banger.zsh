#compdef banger
# zsh completion for banger

_banger() {
    local -a answer plain colon
    local line word about
    answer=("${(@f)$(command banger complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in "${answer[@]}"; do
        [[ -z $line ]] && continue
        word="${line%%$'\t'*}"
        about="${line#*$'\t'}"
        case "$word" in
        :files) _files ;;
        *:) colon+=("$word") ;;
        # _describe takes word:description, so that a colon in a word is escaped.
        *) plain+=("${word//:/\\:}${about:+:$about}") ;;
        esac
    done
    (( ${#plain} )) && _describe banger plain
    (( ${#colon} )) && compadd -S '' -- "${colon[@]}"
    return 0
}

if [[ ${funcstack[1]} == _banger ]]; then
    _banger "$@"
else
    compdef _banger banger
fi
