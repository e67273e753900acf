/** What is chosen of the drawing is sorted by hand: made one thing, joined with another one, or split; or copied, mirrored, deleted. */

import { divided, halved, joined, thingAt } from "../drawing/things.js";
import { byId } from "../shared/dom.js";

/** `shown` gives the things that have labels, `things` all; `sort` changes some of the marks by a function of things.js. */
export function createSorting(paper, { shown, things, sort }) {
  const [bar, list] = ["held", "things"].map(byId);
  // Marks, or dots of an image; and whether they wait for the thing that they are to be joined with.
  let held = [];
  let joining = false;

  paper.addEventListener("choose", () => hold(paper.chosen));
  list.addEventListener("click", press, true);
  list.addEventListener("keydown", (event) => (event.key === "Enter" ? press(event) : event.key === "Escape" && wait(false)), true);
  const deeds = { one: () => sort(joined, held), join, split: () => sort(halved, held), copy: () => paper.copy(), mirror: () => paper.mirror() };
  Object.entries(deeds).forEach(([name, deed]) => byId(`held-${name}`).addEventListener("click", () => void deed()));
  byId("remove").addEventListener("click", () => paper.remove());

  const among = ({ marks }) => marks.some((mark) => held.includes(mark));
  const others = () => shown().filter((thing) => !among(thing));

  function hold(marks) {
    held = marks;
    const parts = things().filter(among);
    const whole = parts.length === 1 && parts[0].marks.length === held.length;
    const dots = Boolean(held[0]?.at);
    const unusable = { one: whole, join: !others().length, split: !whole || !divided(parts[0]), copy: dots, mirror: dots };
    Object.entries(unusable).forEach(([name, yes]) => (byId(`held-${name}`).hidden = yes));
    byId("remove").hidden = dots;
    bar.hidden = !held.length;
  }

  /** Join it with the only other thing; of several, with the one that is pressed next. */
  function join() {
    const all = others();
    all.length > 1 ? wait(true) : void sort(joined, [...held, ...all[0].marks]);
  }

  function wait(yes) {
    joining = yes;
    list.classList.toggle("joining", yes);
    [...list.children].forEach((one, i) => one.classList.toggle("from", yes && among(shown()[i])));
    byId("hint").textContent = yes ? "Press what it belongs to." : "";
  }

  function press(event) {
    if (!joining) { return; }
    const place = [...list.children].findIndex((one) => one.contains(event.target));
    const other = shown()[place] ?? thingAt(shown(), paper.pointOf(event));
    event.stopPropagation();
    // A word that is being typed would stay.
    event.target.matches("input") && event.target.blur();
    wait(false);
    if (other && !among(other)) { void sort(joined, [...held, ...other.marks]); }
  }

  return {
    take({ marks }) {
      if (joining) { return; }
      if (marks[0].at) { hold(marks); } else { paper.choose(marks); }
    },
    /** The label is left for what was `pressed`. */
    leave(pressed) {
      if (joining || pressed?.closest("#held, #handles, #paper")) { return; }
      paper.choose([]);
    },
    refresh: () => hold(held),
    forget: () => wait(false),
  };
}
