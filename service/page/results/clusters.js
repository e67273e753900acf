/** The clusters that a search has scored photos of, each as a row of small photos. */

import * as api from "../shared/api.js";
import { element, part } from "../shared/dom.js";
import { count, fileName, clustersSearched, trouble } from "../shared/words.js";

// A row of this many fits a phone. Of many clusters only the best are shown.
const FACES = 7;
const MOST_CLUSTERS = 12;

export class Clusters {
  #open;
  #box = part("clusters");
  #list = part("clusters-list");
  #clusters = [];
  #question = new api.Latest();

  /** @param {(photos: object[], place: number) => void} open shows one of these photos */
  constructor(open) {
    this.#open = open;
    this.#box.addEventListener("toggle", () => this.#box.open && this.#fill());
  }

  /** Show these clusters, best first. Without any, the box is hidden. */
  show(clusters) {
    const same = clusters.map(({ id }) => id).join() === this.#clusters.map(({ id }) => id).join();
    this.#clusters = clusters;
    this.#box.hidden = !clusters.length;
    part("clusters-name").textContent = clustersSearched(clusters.length);
    if (!same) {
      this.#list.replaceChildren();
      if (this.#box.open) {
        this.#fill();
      }
    }
  }

  #fill() {
    if (this.#list.childElementCount) {
      return;
    }
    const wanted = this.#clusters.slice(0, MOST_CLUSTERS);
    void this.#question.ask(
      (signal) => Promise.all(wanted.map(({ id }) => api.cluster(id, FACES, signal))),
      (found) => this.#list.replaceChildren(...found.map((one) => this.#strip(one))),
      (error) => this.#list.replaceChildren(element("li", { textContent: trouble(error).join(": ") })),
    );
  }

  #strip({ photos, size }) {
    const faces = photos.map((photo, place) => {
      const image = api.picture(`${photo.thumbnail_url}?size=128`, { loading: "lazy" });
      const [name, onclick] = [fileName(photo.paths[0]), () => this.#open(photos, place)];
      return element("li", {}, element("button", { type: "button", title: name, ariaLabel: name, onclick }, image));
    });
    return element("li", {}, element("p", { textContent: count(size, "photo") }), element("ul", {}, ...faces));
  }
}
