# fish completion for banger

function __banger_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (command banger complete -- $words[2..-1] 2>/dev/null)
        if string match -q -- ':files*' $line
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end

complete -c banger -f -a '(__banger_complete)'
