/** The views of an explanation: what each lays over the sketch and the photos, and what it says in plain words. */

import { inked } from "../drawing/ink.js";
import { choose, element } from "../shared/dom.js";
import { percent, strength } from "../shared/words.js";

const LIGHT = "#ffb000";
const PLACES = ["top left", "top", "top right", "left", "middle", "right", "bottom left", "bottom", "bottom right"];
// White text can be read on each of them, and people who are colour-blind can distinguish them.
const PAIRS = ["#c2410c", "#0072b2", "#b0478a", "#00785a", "#8a6a00"];
const SHADE = 0.3;
const MOST_PAIRS = 5;
const DAZZLING = 8;

/** @type {Record<string, View>} */
export const VIEWS = {
  parts: {
    lead: (yours) => `Point at a part of ${yours} to light up where the computer finds it in each photo. Press it to pin it in a colour, up to four at once. The words say how well the two match.`,
    network: "Cosines of all pairs of sketch and photo tokens after cross-attention (eq. 8 of the paper). For every sketch token that the part crosses, its best photo token is lit; pale squares are tokens that were dropped.",
    alike: "Cosines of all pairs of patch tokens of the two photos, as they left the encoder, without their mean. For every token of the part, its best token in the other photo is lit; pale squares are tokens that were dropped. The ranking itself goes by [Ret].",
    fits: (answer) => comparesPatches(answer),
    sketch(overlay, { answer, pins }) {
      const kept = keptCells(answer.sketch, answer.grid);
      for (const { part, colour } of pins) {
        overlay.tint(new Map([...part.cells].map((cell) => [cell, kept.has(cell) ? 0.4 : 0.12])), colour);
        overlay.contour(part.cells, colour);
      }
      for (const { part, colour, letter } of pins) {
        overlay.badge([...part.cells][Math.floor(part.cells.size / 2)], letter, colour);
      }
    },
    photo(overlay, { pins }, photo) {
      const found = pins.map((pin) => ({ ...pin, cells: bestMatches(photo, pin.part.cells) }));
      const lit = new Set(found.flatMap(({ cells }) => [...cells.keys()]));
      overlay.veil((cell) => Number(lit.has(cell)), SHADE);
      for (const { cells, colour } of found) {
        overlay.tint(new Map([...cells.keys()].map((cell) => [cell, 0.15])), colour);
        overlay.contour(new Set(cells.keys()), colour);
      }
      const badges = [];
      for (const { cells, colour, letter } of found.filter((pin) => pin.cells.size)) {
        const [cell] = strongest(cells);
        // Parts may have the same best match: their letters stand side by side.
        overlay.badge(cell, letter, colour, badges.filter((other) => other === cell).length);
        badges.push(cell);
      }
    },
    says({ pins }, photo) {
      return pins.map(({ part, colour, letter }) => {
        const cells = bestMatches(photo, part.cells);
        return { text: cells.size ? `${letter} ${strength(strongest(cells)[1])}` : `${letter} dropped`, colour };
      });
    },
  },
  nearest: {
    lead: (yours) => `Below ${yours} are the photos that look most like it to the computer; beside each photo found are those that look most like that photo. A blue frame marks photos in both rows. Photos that look alike share their scores, so the best match need not be the most similar one.`,
    network: "By [Ret] alone, before diffusion: the cosines of the sketch and the photos, lowered by their prior if the network has one; and those of photos with each other, without the mean of all photos, as diffusion compares them.",
    alike: "By [Ret] alone, before diffusion: cosines of photos with each other, without the mean of all photos.",
  },
  look: {
    lead: () => "The computer looks most at the areas in colour to recognise what a picture shows; the rest is grey. The yellow line surrounds the spots it looks at most.",
    network: "Attention of [Ret] over the patch tokens: in the last block, averaged over its heads. Dropped tokens have none. The line is around the fewest cells that hold the chosen share.",
    sketch: (overlay, { answer, share }) => shine(overlay, answer.sketch, share),
    photo: (overlay, { share }, photo) => shine(overlay, photo, share),
  },
  pairs: {
    lead: () => "These pairs of squares matter most: 1 in your drawing matches 1 in the photo. Choose a photo to see its pairs and, below it, how much its score would fall without each.",
    network: "Token pairs whose removal from the kernel matrix lowers the relation score most: score before minus after, as a share of the score.",
    // Only a relation network has a score that rests on pairs, and only for a drawing.
    fits: ({ photos }) => photos.some((photo) => photo.relation_score !== null),
    sketch: (overlay, { chosen }) => number(overlay, chosen.influence, "sketch_cell"),
    photo(overlay, _, photo) {
      const cells = new Set(photo.influence.slice(0, MOST_PAIRS).map(({ photo_cell }) => photo_cell));
      overlay.veil((cell) => Number(cells.has(cell)), SHADE);
      number(overlay, photo.influence, "photo_cell");
    },
    says(_, photo) {
      const pairs = photo.influence
        .slice(0, MOST_PAIRS)
        .map(({ drop }, i) => ({ text: `${i + 1}: ${percent(-drop)}`, colour: PAIRS[i] }));
      return pairs.length ? pairs : [{ text: "no pair stands out" }];
    },
  },
};

/** Offer the views that fit this answer of POST /explain; where the chosen one does not, the first of them is chosen. */
export function offer(answer) {
  const radios = [.../** @type {NodeListOf<HTMLInputElement>} */ (document.getElementsByName("why-view"))];
  for (const radio of radios) { radio.parentElement.hidden = VIEWS[radio.value].fits?.(answer) === false; }
  if (radios.find(({ checked }) => checked).parentElement.hidden) {
    choose("why-view", radios.find((radio) => !radio.parentElement.hidden).value);
  }
}

/** The fewest cells that hold this share of all the attention. */
export function heaviest(values, share) {
  const order = values.map((_, cell) => cell).sort((a, b) => values[b] - values[a]);
  // A little less, because of rounding errors: a share that is met exactly must not take one more cell.
  const wanted = share * values.reduce((sum, value) => sum + value, 0) - 1e-9;
  let held = 0;
  return new Set(order.filter((cell) => {
    held += values[cell];
    return held - values[cell] < wanted && values[cell] > 0;
  }));
}

/** Photo cells that are the best match of one of these sketch cells, and how well they match. */
export function bestMatches({ matches }, cells) {
  const found = new Map();
  for (const { sketch_cell, photo_cell, cosine } of matches) {
    if (cells.has(sketch_cell)) { found.set(photo_cell, Math.max(cosine, found.get(photo_cell) ?? -1)); }
  }
  return found;
}

/** Whether patches were matched: a network with one vector for each picture has none. */
const comparesPatches = ({ photos }) => photos.some((photo) => photo.sketch_cells.length && photo.photo_cells.length);

const strongest = (cells) => [...cells].reduce((best, one) => (one[1] > best[1] ? one : best));

const keptCells = ({ kept }, grid) => new Set(kept.at(-1) ?? Array(grid ** 2).keys());

function shine(overlay, { attention }, share) {
  const values = attention[0].map((_, cell) => attention.reduce((sum, head) => sum + head[cell] / attention.length, 0));
  // A few tokens take so much of the attention that all others would look dark.
  const bright = Math.max([...values].sort((a, b) => b - a)[DAZZLING] ?? 0, 1e-9);
  overlay.veil((cell) => Math.sqrt(Math.min(1, values[cell] / bright)), 0.65);
  overlay.contour(heaviest(values, share), LIGHT);
}

function number(overlay, pairs, side) {
  const cells = pairs.slice(0, MOST_PAIRS).map((pair) => pair[side]);
  cells.forEach((cell, i) => cells.indexOf(cell) === i && overlay.contour(new Set([cell]), PAIRS[i]));
  [...new Set(cells)].reverse().forEach((cell) => {
    const ranks = cells.flatMap((other, i) => (other === cell ? [i + 1] : []));
    overlay.badge(cell, ranks.join(" "), PAIRS[ranks[0] - 1]);
  });
}

/** The ninths, {name, place, cells}, of the `prepared` picture that the network saw; without bare paper, whose matches mean nothing. */
export function partsOf(prepared, grid) {
  const { naturalWidth: width, naturalHeight: height } = prepared;
  const context = element("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(prepared, 0, 0);
  const cellAt = ([x, y]) => Math.floor((y / height) * grid) * grid + Math.floor((x / width) * grid);
  const all = [...new Set(inked(context).map(cellAt))].sort((a, b) => a - b);
  const third = (line) => Math.floor((3 * (line + 0.5)) / grid);
  const placeAt = (cell) => 3 * third(Math.floor(cell / grid)) + third(cell % grid);
  const parts = PLACES.map((name, place) => ({ name: `The ${name}`, place, cells: new Set(all.filter((cell) => placeAt(cell) === place)) }));
  return parts.filter(({ cells }) => cells.size);
}

/** The parts, those in the middle first: it mostly has what a picture shows. */
export function middleFirst(parts) {
  const away = ({ place }) => Math.hypot((place % 3) - 1, Math.floor(place / 3) - 1);
  return [...parts].sort((a, b) => away(a) - away(b));
}
