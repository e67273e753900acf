/**
 * Dialogs that Back of the browser closes, the uppermost one first: the state of an entry of its history says how many are open.
 * After a reload none is, so the history is moved back to the page's own entry. And the part of the page's address that says what is
 * searched for: `#like=17,23&unlike=5&folder=2023/summer`. Each change of it is a step, and states say how many lead to an entry.
 */

let open = /** @type {Shown[]} */ ([]);
// Closed by Back, the last one at the end; Forward may open them again.
const closed = /** @type {Shown[]} */ ([]);
const known = new WeakSet();
// The history moves some time after it was asked to. Until then nothing else may be asked of it.
let moving = false;
let waiting = /** @type {() => void} */ (null);

/** Show this dialog above everything else. `again` tells whether Forward may open it once more, with what it showed. @type {(dialog: HTMLDialogElement, again?: () => boolean) => void} */
export function show(dialog, again = () => true) {
  closed.length = 0;
  appear({ dialog, again });
  follow();
}

/** Close all dialogs, and call `then` when the history is at the page's own entry; that may be a moment later. @type {(then: () => void) => void} */
export function closeAll(then) {
  closed.length = 0;
  waiting = then;
  while (open.length) { open.pop().dialog.close(); }
  follow();
}

function appear(/** @type {Shown} */ one) {
  const { dialog } = one;
  const others = () => open.filter((other) => other.dialog !== dialog);
  open = [...others(), one];
  if (!known.has(dialog)) {
    known.add(dialog);
    dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    // By its own buttons and keys, or by Back. The event comes a moment late, and the dialog may be open again.
    dialog.addEventListener("close", () => {
      if (!dialog.open) {
        open = others();
        follow();
      }
    });
  }
  dialog.showModal();
}

/** Give the history as many entries as there are open dialogs. */
function follow() {
  if (moving) { return; }
  const surplus = depth() - open.length;
  if (surplus > 0) {
    moving = true;
    history.go(-surplus);
  }
  for (let missing = -surplus; missing > 0; missing--) { history.pushState({ ...history.state, dialogs: depth() + 1 }, ""); }
  if (waiting && !moving && !open.length) {
    const then = waiting;
    waiting = null;
    then();
  }
}

const depth = () => history.state?.dialogs ?? 0;

function moved() {
  if (moving) {
    moving = false;
    follow();
    return;
  }
  while (open.length > depth()) {
    const one = open.pop();
    closed.push(one);
    one.dialog.close();
  }
  while (open.length < depth() && closed.at(-1)?.again()) { appear(closed.pop()); }
  follow();
}

window.addEventListener("popstate", moved);
follow();
// A visit in the same tab begins with a step of its own.
history.state?.key || history.replaceState({ ...history.state, key: Date.now() }, "");

const IDS = /** @type {PhotoPart[]} */ (["like", "unlike", "unlike_kind"]);
const ID = /^[0-9]{1,18}$/;
const DAY = /^[0-9]{4}-[0-9]{2}-[0-9]{2}$/;
/** @type {Record<OtherPart, {is: RegExp, most: number}>} */
const OTHERS = { text: { is: /\S/, most: 1 }, folder: { is: /\S/, most: 8 }, after: { is: DAY, most: 1 }, before: { is: DAY, most: 1 } };
const NAMES = /** @type {OtherPart[]} */ (Object.keys(OTHERS));

/** What the address, or such a part of another one, names: parameters of a search, each with the list of its values. @type {(hash?: string) => Wanted} */
export function read(hash = location.hash) {
  const given = new URLSearchParams(hash.slice(1));
  const ids = (/** @type {string} */ name) => (given.get(name) ?? "").split(",").filter((id) => ID.test(id));
  const values = (/** @type {OtherPart} */ name) => given.getAll(name).filter((value) => OTHERS[name].is.test(value));
  return Object.fromEntries([
    ...IDS.map((name) => [name, [...new Set(ids(name))]]),
    ...NAMES.map((name) => [name, [...new Set(values(name))].slice(0, OTHERS[name].most)]),
  ]);
}

/** Go on to an address that names this, once dialogs are closed; then the window gets the event "step". `counts`: as a step @type {(wanted: Wanted, counts?: boolean) => void} */
export function write(wanted, counts = true) {
  closeAll(() => {
    history.pushState({ dialogs: 0, step: steps() + Number(counts), key: Math.max(Date.now(), stepKey() + 1) }, "", address(wanted));
    window.dispatchEvent(new Event("step"));
  });
}

export const rewrite = (/** @type {Wanted} */ wanted) => history.replaceState(history.state, "", address(wanted));

function address(/** @type {Wanted} */ wanted) {
  const ids = IDS.filter((name) => wanted[name].length).map((name) => `${name}=${wanted[name].join()}`);
  const others = NAMES.flatMap((name) => wanted[name].map((value) => `${name}=${escaped(value)}`));
  const named = [...ids, ...others];
  const hash = named.length ? `#${named.join("&")}` : "";
  return `${location.pathname}${location.search}${hash}`;
}

export const steps = () => history.state?.step ?? 0;

export const stepKey = () => history.state?.key ?? 0;

/** Escaped as far as it must be: people read addresses, and slashes and commas do no harm here. @type {(value: string) => string} */
const escaped = (value) => encodeURIComponent(value).replaceAll("%2F", "/").replaceAll("%2C", ",");
