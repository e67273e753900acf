/** Drawing by keyboard: arrow keys move a cursor over the paper, Space puts the pen down and lifts it, or takes a stroke. */

import { part } from "../shared/dom.js";

const STEP = 0.025;
const SMALL_STEP = 0.005;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Cursor {
  #paper;
  #mark = part("cursor");
  #place = { x: 0.5, y: 0.5, weight: 1 };
  #down = false;

  constructor(paper) {
    this.#paper = paper;
    const canvas = part("paper");
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#leave());
    canvas.addEventListener("pointerdown", () => this.#leave());
  }

  #key(event) {
    const way = ARROWS[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) {
      return;
    }
    if (way) {
      this.#move(way, event.shiftKey ? SMALL_STEP : STEP);
    } else if (event.key === " ") {
      this.#press();
    } else if (event.key === "Escape" && this.#down) {
      this.#press();
    } else {
      return;
    }
    event.preventDefault();
  }

  #move([x, y], step) {
    this.#place = {
      x: Math.min(1, Math.max(0, this.#place.x + x * step)),
      y: Math.min(1, Math.max(0, this.#place.y + y * step)),
      weight: 1,
    };
    if (this.#down) {
      this.#paper.extend(this.#place);
    }
    this.#show();
  }

  #press() {
    if (this.#down) {
      this.#down = false;
      this.#paper.finish();
      part("heard").textContent = this.#paper.chosen ? "Stroke put down." : "Pen up.";
    } else if (!this.#paper.drawing) {
      this.#paper.begin(this.#place);
      this.#down = this.#paper.drawing;
      const place = `${Math.round(this.#place.x * 100)} across, ${Math.round(this.#place.y * 100)} down.`;
      const moving = this.#down ? "Stroke taken" : "No stroke";
      part("heard").textContent = `${this.#paper.tool === "move" ? moving : "Pen down"}, ${place}`;
    }
    this.#show();
  }

  #leave() {
    if (this.#down) {
      this.#press();
    }
    this.#mark.hidden = true;
  }

  #show() {
    this.#mark.hidden = false;
    this.#mark.classList.toggle("down", this.#down);
    this.#mark.style.left = `${this.#place.x * 100}%`;
    this.#mark.style.top = `${this.#place.y * 100}%`;
  }
}
