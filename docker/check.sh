#!/bin/sh
# Checks the composed file, and that pip finds packages for the target gpu, as far as docker and python3 are here. Builds the image for CPUs and uses it as docker-compose.yml does: indexes samples, serves, searches, stops. Needs no
# daemon and no registry of images: debootstrap makes the base. `make containers` runs this.
set -eu

if docker compose version >/dev/null 2>&1; then
    echo "== composed file"
    docker compose --profile '*' config --quiet
fi
if python3 -m pip --version >/dev/null 2>&1; then
    echo "== packages of the target gpu"
    gpu=$(mktemp -d)
    trap 'rm -rf "$gpu"' EXIT
    python3 docker/requirements.py --only gpu clip faiss-gpu >"$gpu/wanted"
    python3 -m pip install --quiet --dry-run --target "$gpu/none" -c constraints.txt -r "$gpu/wanted"
fi

for tool in podman debootstrap curl; do
    command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: debootstrap needs root"; exit 0; }

image=localhost/sketch-search:cpu
base=localhost/sketch-search-base
name=sketch-search-check-$$
scratch=$(mktemp -d)

# runc is preferred because crun refuses machines with both versions of cgroups.
pod() { podman $(command -v runc >/dev/null && echo --runtime runc) "$@"; }
# The check of health needs systemd; it is run by hand below. Limits of processes and files are set because Podman's default raises them, which not every root may.
contained() {
    pod run --no-healthcheck --read-only --tmpfs /tmp:size=256m,mode=1777 --cap-drop ALL --security-opt no-new-privileges \
        --memory 2g --cpus 2 --pids-limit 256 --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
        --env SKETCH_SEARCH_THREADS=2 --env OMP_NUM_THREADS=2 --volume "$name-index:/index" "$@"
}
clean_up() {
    podman rm --force --time 0 "$name" >/dev/null 2>&1 || true
    podman volume rm --force "$name-index" "$name-samples" >/dev/null 2>&1 || true
    rm -rf "$scratch" "${gpu:-}"
}
trap clean_up EXIT

if ! podman image exists $base; then
    echo "== base: Debian 12 with Python, by debootstrap"
    debootstrap --variant=minbase --include=python3-venv,python3-pip,python-is-python3,ca-certificates \
        bookworm "$scratch/base" >"$scratch/log" || { tail -n 20 "$scratch/log"; exit 1; }
    # What official slim images leave out, too; and the mark that keeps pip from installing.
    (cd "$scratch/base" && rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/doc/* usr/share/man/* \
        usr/share/locale/* usr/lib/python3*/EXTERNALLY-MANAGED)
    tar -C "$scratch/base" -c . | podman import - $base >/dev/null 2>&1
fi

echo "== build"
# The machine's certificates: its package index may be a mirror with its own.
podman build --quiet --format docker --isolation chroot --pull=never --network host \
    --volume /etc/ssl/certs:/etc/ssl/certs:ro --build-arg BASE=$base --file docker/Dockerfile --target cpu --tag $image .

echo "== index"
contained --rm --volume "$name-samples:/cache" $image sketch-search index samples /cache
contained --rm --volume "$name-samples:/photos:ro" $image python -m indexer build /photos/photos

echo "== serve and search"
contained --detach --name "$name" --publish 127.0.0.1::8000 --volume "$name-samples:/photos:ro" $image >/dev/null
address=http://$(podman port "$name" 8000)
curl --silent --retry 60 --retry-delay 1 --retry-all-errors --fail "$address/readyz" && echo
pod exec "$name" cat /photos/sketches/umbrella.png | curl --silent --fail --data-binary @- "$address/search?k=1" \
    | tee "$scratch/answer" | head -c 300 && echo
grep -q '"paths":\["umbrella/' "$scratch/answer"
pod exec "$name" python /opt/healthcheck.py

echo "== stop by SIGTERM"
pod stop --time 40 "$name" >/dev/null
code=$(podman inspect --format '{{.State.ExitCode}}' "$name")
[ "$code" = 0 ] || { echo "the service ended with $code"; exit 1; }

podman image inspect --format '{{.Size}}' $image | awk '{ printf "all is well; the image has %.0f MB\n", $1 / 1e6 }'
