"""The scripts that `groupvit completion` fills in, for three shells."""

BASH = """\
# eval "$(groupvit completion bash)"
_groupvit() {
  local line=${COMP_LINE:0:COMP_POINT} verb flag value flags takes=file some="" stem=""
  local -a typed=()
  read -ra typed <<<"$line"
  [[ $line == *[[:space:]] ]] && typed+=("")
  local n=${#typed[@]}
  local cur=${typed[n-1]}
  COMPREPLY=()
  verb=${typed[1]}
  if ((n == 2)); then
    _groupvit_offer -W "@FIRST@" -- "$cur"
    return
  fi
  if [[ $verb == data ]]; then
    verb="data ${typed[2]}"
    if ((n == 3)); then
      _groupvit_offer -W "@DATA@" -- "$cur"
      return
    fi
  fi
  case $verb in
    completion) _groupvit_offer -W "bash zsh fish" -- "$cur"; return ;;
@FLAGS@
    *) return ;;
  esac
  if [[ $cur == -*=* ]]; then
    flag=${cur%%=*} value=${cur#*=}
    [[ $COMP_WORDBREAKS == *=* ]] || stem="$flag="
  elif [[ $cur != -* && " $flags " == *" ${typed[n-2]}= "* ]]; then
    flag=${typed[n-2]} value=$cur
  else
    _groupvit_offer -W "$flags" -- "$cur"
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return
  fi
  case "$verb $flag" in
@TAKES@
  esac
  case $takes in
    one) _groupvit_offer -W "$some" -P "$stem" -- "$value" ;;
    some)
      local before=""
      [[ $value == *,* ]] && before="${value%,*},"
      _groupvit_offer -W "$some" -P "$stem$before" -- "${value##*,}"
      compopt -o nospace 2>/dev/null ;;
    config)
      compopt -o filenames 2>/dev/null
      if [[ configs/ == "$value"* ]]; then _groupvit_offer -G "configs/[!_]*.py" -P "$stem"; fi
      if [[ ${#COMPREPLY[@]} == 0 ]]; then
        _groupvit_offer -f -X '!*.py' -P "$stem" -- "$value"
        _groupvit_offer -d -P "$stem" -- "$value"
      fi ;;
    file)
      compopt -o filenames 2>/dev/null
      _groupvit_offer -f -P "$stem" -- "$value" ;;
  esac
  if [[ $value == *:* && $COMP_WORDBREAKS == *:* ]]; then # readline replaces what is behind the colon only
    local i
    for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"${value%:*}:"}; done
  fi
}
_groupvit_offer() {
  local word
  while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen "$@")
}
complete -F _groupvit groupvit
"""

ZSH = """\
# eval "$(groupvit completion zsh)"
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_groupvit() {
  local verb=$words[2] flag="" flags takes=file some=""
  if (( CURRENT == 2 )); then
    local -a told=(@TOLD@)
    if [[ $PREFIX == -* ]]; then compadd -- --help --version; else _describe command told; fi
    return
  fi
  if [[ $verb == data ]]; then
    verb="data $words[3]"
    if (( CURRENT == 3 )); then
      compadd -- @DATA@
      return
    fi
  fi
  case $verb in
    completion) compadd -- bash zsh fish; return ;;
@FLAGS@
    *) return ;;
  esac
  if [[ $PREFIX == -*=* ]]; then
    flag=${PREFIX%%=*}
    compset -P '*='
  elif [[ $PREFIX != -* && " $flags " == *" $words[CURRENT-1]= "* ]]; then
    flag=$words[CURRENT-1]
  else
    local -a all=(${=flags})
    compadd -S '' -- ${(M)all:#*=}
    compadd -- ${all:#*=}
    return
  fi
  case "$verb $flag" in
@TAKES@
  esac
  case $takes in
    one) compadd -- ${=some} ;;
    some) compset -P '*,'; compadd -S '' -- ${=some} ;;
    config) if [[ configs/ == $PREFIX* ]]; then compadd -f -- configs/[^_]*.py(N); else _files -g '*.py'; fi ;;
    file) _files ;;
  esac
}
compdef _groupvit groupvit
"""

FISH = """\
# groupvit completion fish > ~/.config/fish/completions/groupvit.fish
function __groupvit_says # whether these are all the words so far
    test (commandline -opc | string join ' ') = (string join ' ' groupvit $argv)
end
function __groupvit_for # whether the command is this one
    string match -q -- (string join ' ' groupvit $argv)' *' (commandline -opc | string join ' ')' '
end
function __groupvit_configs
    string match -v '*/_*' configs/*.py
    __fish_complete_suffix .py
end
complete -c groupvit -e
complete -c groupvit -f
"""
