/** The photos that look most like a drawing, and like the photos that were found: rows of small pictures. */

import * as api from "../shared/api.js";
import { element, byId } from "../shared/dom.js";
import { fileName, numberOf, percent, sentence } from "../shared/words.js";

/** Show the rows of an answer of POST /explain; `results` are its photos, `yours` what they are compared with. */
export function showNearest({ nearest, photos }, results, yours) {
  const near = new Set(nearest.map(({ id }) => id));
  const others = new Set(photos.flatMap((photo) => photo.nearest.map(({ id }) => id)));
  byId("why-nearest-yours").ariaLabel = `Photos that look most like ${yours}`;
  byId("why-nearest-yours").replaceChildren(
    ...nearest.map((photo) => small(photo, others.has(photo.id) ? "also looks like a photo found" : "")),
  );
  byId("why-nearest").replaceChildren(
    ...photos.map((photo, place) => {
      const name = fileName(results[place].paths[0]);
      const row = photo.nearest.map((one) => small(one, near.has(one.id) ? `also looks like ${yours}` : ""));
      return element("li", {},
        element("img", { className: "face", src: photo.image, alt: "" }),
        element("p", { className: "name", textContent: `${numberOf(results[place])}: ${name}` }),
        element("p", { className: "says row", textContent: rankOf(photo) }),
        element("ul", { className: "nearest row", ariaLabel: `Photos that look most like ${name}` }, ...row),
      );
    }),
  );
}

/** A small picture with how alike it is. @param {string} both what else is said of it; it gets a frame then */
function small({ paths, cosine, thumbnail_url }, both) {
  const image = api.picture(thumbnail_url, { alt: fileName(paths[0]), title: paths[0] });
  const said = both && element("span", { className: "unseen", textContent: `. ${sentence(both)}` });
  return element("li", { className: both ? "both" : "" }, image, element("p", {}, percent(cosine), said));
}

const rankOf = ({ ret_rank: rank }) => (rank === null ? "Not in the index" : `By looks alone: rank ${rank.toLocaleString("en")}`);
