"""The shell scripts of a baseline that is kept by the sandbox's own git.

The baseline has repositories of its own in a folder outside the workdir, one for each *root*: the
workdir, and every repository below it. They share their objects and read nothing of the
repositories that the agent works with: no index, no configuration, no hooks, no filters. What a
root held at a mark is a tree, kept under `marks/MARK/KEY`; a root's key is made of its name.
"""

from __future__ import annotations

from kaos_runner.workspace.hostgit import ATTRIBUTES, CONFIG

GONE, NO_ROOM, LOST, NO_GIT = 92, 93, 94, 96

_FUNCTIONS = r"""
unset GIT_INDEX_FILE GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_CONFIG_PARAMETERS GIT_CONFIG_COUNT \
  GIT_EXTERNAL_DIFF GIT_DIFF_OPTS GIT_NAMESPACE GIT_CEILING_DIRECTORIES GIT_ATTR_SOURCE GIT_TRACE \
  GIT_CONFIG GIT_PREFIX GIT_LITERAL_PATHSPECS GIT_GLOB_PATHSPECS GIT_NOGLOB_PATHSPECS \
  GIT_ICASE_PATHSPECS GIT_QUARANTINE_PATH GIT_COMMON_DIR
export LC_ALL=C GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1 \
  GIT_OPTIONAL_LOCKS=0 GIT_TERMINAL_PROMPT=0 GIT_NO_LAZY_FETCH=1 \
  HOME="$store" XDG_CONFIG_HOME="$store"
umask 077

name_of() { name=$(cat "$store/roots/$1" && printf x) || exit 94; name=${name%x}; }

# Run git for the root $key, which is $name.
own() {
  GIT_DIR=$store/git/$key GIT_WORK_TREE=$top/$name GIT_OBJECT_DIRECTORY=$store/objects "$git" "$@"
}

# Every repository below the workdir becomes a root; what a root ignores does not.
discover() {
  find . -name .git -prune -exec /bin/sh -c '
    for found; do
      name=${found%/.git}; [ "$name" != . ] || continue
      key=$(printf %s "$name" | cksum | tr " " -)
      [ -e "$0/roots/$key" ] || printf %s "$name" >"$0/new/$key"
    done' "$store" {} + 2>/dev/null
  for file in "$store"/new/*; do
    [ -e "$file" ] || continue
    candidate=${file##*/}; path=$(cat "$file" && printf x); path=${path%x}
    if ignored "$path"; then rm -f "$file"; else mv "$file" "$store/roots/$candidate"; fi
  done
}

ignored() {
  for known in "$store"/roots/*; do
    [ -e "$known" ] || continue
    key=${known##*/}; name_of "$key"
    case $1 in
      "$name"/*) [ ! -d "$top/$name" ] ||
        ! (cd "$top/$name" && own check-ignore -q --no-index -- "${1#"$name"/}") || return 0 ;;
    esac
  done
  return 1
}

create() {
  mkdir -p "$store/git/$key/refs" "$store/git/$key/info" "$store/git/$key/objects" || exit 93
  echo 'ref: refs/heads/none' >"$store/git/$key/HEAD"
  cp "$store/config" "$store/git/$key/config"
  cp "$store/attributes" "$store/git/$key/info/attributes"
  [ ! -f "$top/$name/.git/info/exclude" ] ||
    cp "$top/$name/.git/info/exclude" "$store/git/$key/info/exclude"
  share 2>/dev/null
  rm -f "$store/tracked"
  [ ! -e "$top/$name/.git" ] || track 2>/dev/null
}

# What the repository has packed need not be written again. A hard link outlives its repository.
share() {
  packs=$top/$name/.git/objects/pack
  format=$(GIT_DIR=$top/$name/.git "$git" rev-parse --show-object-format)
  [ -d "$packs" ] && [ "$format" = sha1 ] || return 0
  mkdir -p "$store/objects/pack"
  for pack in "$packs"/*.pack; do
    [ ! -f "${pack%.pack}.idx" ] || {
      ln "$pack" "$store/objects/pack/" && ln "${pack%.pack}.idx" "$store/objects/pack/"
    }
  done
}

# What the repository tracks counts, even where its .gitignore names it.
track() {
  (
    cd "$top/$name" && export GIT_DIR="$top/$name/.git" GIT_WORK_TREE="$top/$name" &&
    "$git" -c core.fsmonitor=false ls-files -c -i --exclude-standard -z >"$store/tracked"
  )
  [ ! -s "$store/tracked" ] ||
    (cd "$top/$name" && own update-index --add --remove -z --stdin <"$store/tracked")
}

# Snapshot the root $1; its tree is in $tree.
snapshot() {
  key=$1; name_of "$key"; root=$name
  [ -d "$store/git/$key" ] || create
  if [ ! -d "$top/$root" ]; then tree=$empty; return; fi
  set --
  for other in "$store"/roots/*; do
    name_of "${other##*/}"
    case $name in "$root"/*) set -- "$@" ":(exclude,top,literal)${name#"$root"/}" ;; esac
  done
  name=$root
  cd "$top/$root" || exit 1
  own add -A --ignore-errors -- . "$@" 2>"$store/errors" || {
    grep -v -e '^warning:' -e '^hint:' "$store/errors" >&2
    # Only a file that may not be read, or is gone, is passed over: else changes could be hidden.
    ! grep -v -e '^warning:' -e '^hint:' -e 'Permission denied' -e 'No such file' \
      -e 'short read while indexing' -e 'unable to index file' -e 'adding files failed' \
      "$store/errors" >/dev/null || exit 1
  }
  tree=$(own write-tree) || exit 1
  cd "$top" || exit 1
}

# What the root $1 was at mark $2, in $before: for a new root the part of the one that held it.
was() {
  before=
  if [ -f "$store/marks/$2/$1" ]; then before=$(cat "$store/marks/$2/$1"); return; fi
  name_of "$1"; sought=$name; nearest=
  for file in "$store/marks/$2"/*; do
    [ -f "$file" ] || continue
    name_of "${file##*/}"
    case $sought in "$name"/*)
      if [ "${#name}" -gt "${#nearest}" ]; then
        nearest=$name; key=${file##*/}
        before=$(own rev-parse -q --verify "$(cat "$file"):${sought#"$name"/}" 2>/dev/null)
      fi ;;
    esac
  done
  [ -n "$before" ] || before=$empty
}

snapshot_all() {
  mkdir -p "$store/marks/$1" || exit 93
  for file in "$store"/roots/*; do
    snapshot "${file##*/}"
    printf %s "$tree" >"$store/marks/$1/${file##*/}" || exit 93
  done
}
"""

TAKE = (
    r"""
top=$1
git=$(command -v git) || exit 96
cd "$top" || exit 1
top=$(pwd -P)
store=
for base in "${TMPDIR:-/tmp}" /var/tmp "$HOME"; do
  real=$(cd "$base" 2>/dev/null && pwd -P) || continue
  case $real/ in "${top%/}"/*) continue ;; esac
  store=$(mktemp -d "$real/kaos-runner-baseline.XXXXXX" 2>/dev/null) && break
done
[ -n "$store" ] || exit 93
printf '%s\0%s\0%s\0' "$top" "$git" "$store"
mkdir "$store/roots" "$store/new" "$store/git" "$store/marks" "$store/objects" || exit 93
printf %s "$2" >"$store/config"; printf %s "$3" >"$store/attributes"
printf %s . >"$store/roots/top"
"""
    + _FUNCTIONS
    + r"""
key=top; name=.; create
empty=$(own mktree </dev/null) || exit 1
printf %s "$empty" >"$store/empty"
discover
snapshot_all 0
"""
)
"""`$1` is the workdir, `$2` the configuration, `$3` the attributes; says workdir, git and store."""

_AGAIN = (
    r"""
top=$1; git=$2; store=$3
[ -s "$store/empty" ] && [ -d "$store/objects" ] && [ -f "$store/roots/top" ] || exit 94
empty=$(cat "$store/empty")
cd "$top" || exit 92
"""
    + _FUNCTIONS
    + "discover\n"
)

MARK = _AGAIN + 'snapshot_all "$4"\n'
"""`$4` is the mark to make."""

CHANGED = (
    _AGAIN
    + r"""
snapshot_all now
for file in "$store"/roots/*; do
  root=${file##*/}
  was "$root" "$4"
  key=$root; name_of "$root"
  printf '%s\0' "$name"
  now=$(cat "$store/marks/now/$root")
  own diff-tree -r -z --name-only --no-renames "$before" "$now" || exit 94
  printf '\0'
done
"""
)
"""`$4` is the mark to compare with; says each root, its changed names and an empty name."""

PATCH = (
    _AGAIN
    + r"""
mark=$4; wanted=$5; nearest=
snapshot_all now
for file in "$store"/roots/*; do
  name_of "${file##*/}"
  case $wanted/ in "$name"/*) [ "${#name}" -le "${#nearest}" ] || nearest=$name ;; esac
done
for file in "$store"/roots/*; do
  root=${file##*/}
  was "$root" "$mark"
  key=$root; name_of "$root"
  now=$(cat "$store/marks/now/$root")
  # Renames carry no prefix in a patch, so a root below the directory has them as delete and create.
  if [ "$name" = "$wanted" ]; then set -- -M -l2000
  elif [ "$name" = "$nearest" ]; then set -- -M -l2000 --relative="${wanted#"$name"/}/"
  else
    case $name in
      "$wanted"/*) inner=${name#"$wanted"/}
        set -- --no-renames --src-prefix="a/$inner/" --dst-prefix="b/$inner/" ;;
      *) continue ;;
    esac
  fi
  own diff-tree -r -p --binary --full-index --no-color --no-ext-diff --no-textconv "$@" \
    "$before" "$now" || exit 94
done
"""
)
"""`$4` is the mark to compare with, `$5` the directory as `.` or `./a/b`; says the patch."""

REMOVE = 'rm -rf -- "$1"\n'

CONFIGURATION = CONFIG.format(version=0)
CONFIG_ARGS = (CONFIGURATION, ATTRIBUTES)
