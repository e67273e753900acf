/** Sketches to start from. */

const WIDTH = 0.014;
const INK = "#000000";

/**
 * The sketches by name. examples.json has their strokes by their points, x to the right and y down, in hundredths of the sheet:
 * `round` ones curve around their points, `angular` ones have corners.
 */
export async function examples() {
  const strokes = await (await fetch(new URL("examples.json", import.meta.url))).json();
  return Object.entries(strokes).map(([name, own]) => ({ name, marks: own.map(toMark) }));
}

function toMark(stroke) {
  const [kind, ...numbers] = stroke.split(" ");
  const values = numbers.map((number) => number / 100);
  const pairs = values.flatMap((x, i) => (i % 2 ? [] : [[x, values[i + 1]]]));
  // A point that is there twice makes a corner: the curve around it has no length.
  const places = kind === "round" ? pairs : pairs.flatMap((place) => [place, place]);
  return { kind: "pen", colour: INK, width: WIDTH, points: places.map(([x, y]) => ({ x, y, weight: 1 })) };
}
