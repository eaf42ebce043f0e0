#!/usr/bin/env bash
# The first half hour on a card: everything worth knowing about smpo on this GPU, in order of worth, each part within its
# own time limit. Each part writes its JSON while it works, so that an interrupted call keeps what it has.
#
#   benchmarks/first_half_hour.sh                      # all parts, less than thirty minutes
#   benchmarks/first_half_hour.sh doctor gpu           # some of them, for a card that is lent for minutes
#   benchmarks/first_half_hour.sh --dry-run            # the commands and limits; runs nothing
#   REHEARSAL=1 benchmarks/first_half_hour.sh          # small networks on a CPU: whether all of it works
#
# Parts, in order:
#   doctor   the machine, versions, clocks, ceilings             gpu      `pytest -m gpu`
#   sdxl     exact training against the official structure       options  settings of `runtime`, one at a time
#   sd15     the same as sdxl, for SD 1.5                         memory   the allocator's peaks against `smpo plan`
#
# Variables:
#   OUT        folder of the results                (runs/first_half_hour)
#   PARTS      parts, when none are named
#   WHEELS     folder with wheels of smpo and of what it needs, but for torch: they are installed into SITE without a
#              network, and the system's torch is used
#   SITE       where they are installed             (a new temporary folder)
#   PYTHON     the interpreter                      (python3)
#   DEVICE     the device                           (cuda; cpu in a rehearsal)
#   TOTAL      seconds for all parts                (1750)
#   LIMIT_PART seconds for one, as LIMIT_sdxl
#   SDXL, SD15 options of benchmarks/side_by_side.py for these parts, instead of those for the card's memory
set -uo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
everything=(doctor gpu sdxl options sd15 memory)
python="${PYTHON:-python3}"
rehearsal="${REHEARSAL:-}"
if [ -n "$rehearsal" ]; then device="${DEVICE:-cpu}"; else device="${DEVICE:-cuda}"; fi
out="${OUT:-runs/first_half_hour}"
total="${TOTAL:-1750}"
dry=""
parts=()

usage() { sed -n '2,/^set /p' "${BASH_SOURCE[0]}" | sed '/^set /d; s/^# \{0,1\}//'; }

fail() {
    echo "first_half_hour.sh: $1" >&2
    exit 2
}

for word in "$@"; do
    case "$word" in
        -h | --help) usage && exit 0 ;;
        --dry-run) dry=1 ;;
        -*) fail "$word is no option; see --help" ;;
        *) parts+=("$word") ;;
    esac
done
if [ "${#parts[@]}" -eq 0 ]; then read -r -a parts <<<"${PARTS:-${everything[*]}}"; fi
for part in "${parts[@]}"; do
    [[ " ${everything[*]} " == *" $part "* ]] || fail "there is no part $part; there are ${everything[*]}"
done

# Seconds that a part may take: they add up to less than TOTAL.
limit() {
    local name="LIMIT_$1"
    if [ -n "${!name:-}" ]; then echo "${!name}" && return; fi
    if [ -n "$rehearsal" ]; then echo 600 && return; fi
    case "$1" in
        doctor) echo 60 ;;
        gpu) echo 450 ;;
        sdxl) echo 480 ;;
        options) echo 300 ;;
        sd15) echo 240 ;;
        memory) echo 210 ;;
    esac
}

# Memory of the card in GB, rounded down, into `gb`; 0 without one.
gb=""
look_at_the_card() {
    [ -z "$gb" ] || return 0
    gb="$("$python" -c 'import torch; c = torch.cuda; print(c.mem_get_info()[1] // 10**9 if c.is_available() else 0)' \
        2>/dev/null)" || gb=0
}

# Options of side_by_side.py that fit the card: what `smpo plan` estimates, with AdamW's state beside the weights.
sized() {
    case "$1" in
        sdxl)
            [ -n "${SDXL:-}" ] && echo "$SDXL" && return
            if [ "$gb" -ge 140 ]; then
                echo "--micro 4 --inversion-batch 32 --shadow-weights"
            elif [ "$gb" -ge 78 ]; then
                echo "--micro 4 --inversion-batch 16 --shadow-weights --checkpointing full"
            else
                echo "--micro 1 --inversion-batch 8 --checkpointing full"
            fi
            ;;
        sd15)
            [ -n "${SD15:-}" ] && echo "$SD15" && return
            if [ "$gb" -ge 78 ]; then
                echo "--micro 16 --inversion-batch 64 --shadow-weights"
            else
                echo "--micro 8 --inversion-batch 32 --shadow-weights --checkpointing full"
            fi
            ;;
    esac
}

# Words of a part's command, after the interpreter, into `command`. Paths are relative to the checkout.
command_of() {
    local words files
    if [ -z "$rehearsal" ]; then look_at_the_card; fi
    case "$1" in
        doctor) command=(-m half_hour.doctor --device "$device") ;;
        gpu)
            # What every run rests on comes first, what other parts do as well last: there may be no time for all.
            mapfile -t files < <(cd "$root" && grep -rlE 'mark\.gpu' tests --include='*.py' |
                sed -E 's/^/5 /; s/^5 (.*test_start)/1 \1/; s/^5 (.*test_half)/2 \1/; s/^5 (.*test_training)/3 \1/
                        s/^5 (.*test_benchmarks)/9 \1/' | sort | cut -d' ' -f2)
            command=(-m pytest -q -m gpu -p no:xdist -p no:cacheprovider -p half_hour.gpu_tests
                --continue-on-collection-errors "${files[@]}")
            if [ -n "$rehearsal" ]; then command+=(--collect-only); fi
            ;;
        sdxl | sd15)
            command=(benchmarks/side_by_side.py --device "$device" --by-worth --keep-going --profile --options)
            if [ -n "$rehearsal" ]; then
                words="--arch tiny --quick"
                if [ "$1" = sd15 ]; then words="--arch sd15 --quick --mode exact --pairs 1"; fi
            else
                words="--arch $1 --precision bf16 --pairs 40 $(sized "$1")"
            fi
            # shellcheck disable=SC2206  # these are words
            command=("${command[@]:0:1}" $words "${command[@]:1}")
            ;;
        options)
            command=(benchmarks/side_by_side.py --device "$device" --mode none --skip-parity)
            if [ -n "$rehearsal" ]; then
                command+=(--arch tiny --quick)
            else
                words="$(sized sdxl)"
                # shellcheck disable=SC2206  # one switch at a time: from a plain start
                command+=(--arch sdxl --precision bf16 --pairs 10 --repeats 2 ${words%% --inversion-batch*})
                if [[ "$words" == *"--checkpointing full"* ]]; then command+=(--checkpointing full); fi
            fi
            ;;
        memory)
            command=(benchmarks/memory.py --device "$device")
            if [ -n "$rehearsal" ]; then
                command+=(--quick)
            else # the presets for large cards and what they are made of, in order of worth
                command+=(--only sdxl_smpo_141gb "SDXL, selective, shadow" sd15_smpo_141gb "SDXL, checkpointing" "SDXL, LoRA"
                    "SDXL, AdamW, EMA" "SD 1.5" "SDXL, everything kept, micro-batch 1" "SD 1.5, offloaded reference")
            fi
            ;;
    esac
    if [ "$1" = gpu ]; then command+=(--results "$out/gpu.json"); else command+=(--out "$out/$1.json"); fi
}

if [ -n "$dry" ]; then
    for part in "${parts[@]}"; do
        command_of "$part"
        printf '%s %s' "$part" "$(limit "$part")"
        printf ' %q' "${command[@]}"
        printf '\n'
    done
    exit 0
fi

mkdir -p "$out" || fail "$out can't be made: name another folder with OUT"
out="$(cd "$out" && pwd)"
command -v timeout >/dev/null || fail "the program \`timeout\` (coreutils) is missing"

if [ -n "${WHEELS:-}" ]; then
    [ -d "$WHEELS" ] || fail "WHEELS=$WHEELS is no folder"
    site="${SITE:-$(mktemp -d "${TMPDIR:-/tmp}/smpo-site.XXXXXX")}"
    wheels=()
    for wheel in "$WHEELS"/*.whl; do
        case "$(basename "$wheel")" in
            torch-* | triton-* | nvidia_* | cuda_*) ;; # the system's own
            *) wheels+=("$wheel") ;;
        esac
    done
    [ -f "${wheels[0]:-}" ] || fail "there is no wheel in $WHEELS"
    # --no-deps: pip would look for torch in the folder, since --target doesn't see what is installed.
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --upgrade --target "$site" "${wheels[@]}" ||
        fail "the wheels of $WHEELS can't be installed"
    export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$root:$root/benchmarks${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 MLFLOW_DISABLE_TELEMETRY=true MLFLOW_DISABLE_AGENT_HINT=1
cd "$root" || exit 2
"$python" - <<'CHECK' || fail "install smpo and what it needs first, or name a folder of wheels with WHEELS"
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

missing = [name for name in ("torch", "diffusers", "transformers", "accelerate", "peft") if find_spec(name) is None]
try:
    version("smpo")  # its components are found by the metadata of the package, not by the checkout
except PackageNotFoundError:
    missing.append("smpo")
if missing:
    sys.exit(f"{sys.executable} lacks {', '.join(missing)}")
CHECK

# One part: its output on the screen and in the log, its ending in parts.json.
run() {
    local part="$1" left allowed began code
    left=$((total - SECONDS))
    allowed="$(limit "$part")"
    if [ "$allowed" -gt "$left" ]; then allowed="$left"; fi
    command_of "$part"
    began=$SECONDS
    if [ "$allowed" -lt 1 ]; then
        echo "=== $part: no time is left of $total s"
        code=124
    else
        echo "=== $part: at most $allowed s: ${command[*]}"
        timeout --kill-after=20 "$allowed" "$python" "${command[@]}" 2>&1 | tee -a "$out/log.txt"
        code="${PIPESTATUS[0]}"
    fi
    "$python" -m half_hour.parts "$out" "$part" "$code" "$((SECONDS - began))" "$allowed" -- "${command[@]}"
}

failed=0
for part in "${parts[@]}"; do
    run "$part" || failed=1
done
"$python" -m half_hour.page --print "$out"
echo "results: $out"
exit "$failed"
