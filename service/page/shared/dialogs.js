/**
 * Dialogs that Back of the browser closes, the uppermost one first.
 *
 * Each open dialog has an entry in the browser's history, whose state says how many are open. Forward opens again what
 * Back has closed. After a reload no dialog is open, so the history is moved back to the page's own entry.
 */

const open = [];
// Closed by Back, the last one at the end; Forward may open them again.
const closed = [];
const known = new WeakSet();
// The history moves some time after it was asked to. Until then nothing else may be asked of it.
let moving = false;
// Called once no dialog is open and the history is at the page's own entry.
let waiting = null;

/** Show this dialog above everything else. `again` tells whether Forward may open it once more, with what it showed. */
export function show(dialog, again = () => true) {
  closed.length = 0;
  appear({ dialog, again });
  follow();
}

/** Close all dialogs, and call `then` when the history is at the page's own entry; that may be a moment later. */
export function closeAll(then) {
  closed.length = 0;
  waiting = then;
  while (open.length) {
    open.pop().dialog.close();
  }
  follow();
}

function appear(one) {
  remove(one.dialog);
  open.push(one);
  if (!known.has(one.dialog)) {
    known.add(one.dialog);
    one.dialog.addEventListener("close", ({ target }) => left(target));
    one.dialog.querySelector(".close").addEventListener("click", () => one.dialog.close());
  }
  one.dialog.showModal();
}

/** A dialog has closed: by its own buttons and keys, or by Back, which has taken it from the list already. */
function left(dialog) {
  // The event comes a moment late, and the dialog may be open again.
  if (!dialog.open) {
    remove(dialog);
    follow();
  }
}

function remove(dialog) {
  const place = open.findIndex((one) => one.dialog === dialog);
  if (place >= 0) {
    open.splice(place, 1);
  }
}

/** Give the history as many entries as there are open dialogs. */
function follow() {
  if (moving) {
    return;
  }
  const surplus = depth() - open.length;
  if (surplus > 0) {
    moving = true;
    history.go(-surplus);
  }
  for (let missing = -surplus; missing > 0; missing--) {
    history.pushState({ ...history.state, dialogs: depth() + 1 }, "");
  }
  if (waiting && !moving && !open.length) {
    const then = waiting;
    waiting = null;
    then();
  }
}

function depth() {
  return history.state?.dialogs ?? 0;
}

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
  while (open.length < depth() && closed.at(-1)?.again()) {
    appear(closed.pop());
  }
  follow();
}

window.addEventListener("popstate", moved);
follow();
