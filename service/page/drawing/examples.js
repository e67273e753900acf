/** Sketches to start from. */

const WIDTH = 0.014;
const INK = "#000000";
// The control points of a circle.
const CORNERS = 24;

// Strokes by their points, x to the right and y down, in hundredths of the sheet. `round` ones curve around their points,
// `angular` ones have corners; a `circle` has its centre and radius.
const EXAMPLES = {
  House: [
    "angular 20 90 20 46 80 46 80 90 20 90", "angular 11 48 50 12 89 48", "angular 44 90 44 64 58 64 58 90",
    "angular 27 56 37 56 37 67 27 67 27 56",
  ],
  Umbrella: [
    "round 8 52 10 30 27 12 50 12 73 12 90 30 92 52", "round 8 52 13 43 29 43 36 52",
    "round 36 52 42 43 58 43 64 52", "round 64 52 71 43 87 43 92 52",
    "round 50 5 50 40 50 80 50 96 35 96 35 82",
  ],
  Fish: [
    "round 8 50 16 30 46 18 66 38 76 50 66 62 46 82 16 70 8 50", "angular 74 50 93 30 87 50 93 70 74 50",
    "round 34 32 43 50 34 68", "round 21 44 24 41 27 44 24 47 21 44",
  ],
  Sailboat: [
    "angular 10 70 23 88 77 88 90 70 10 70", "angular 48 70 48 9", "angular 53 14 83 62 53 62 53 14",
    "angular 43 22 18 62 43 62 43 22",
  ],
  Cup: [
    "angular 16 27 22 82 60 82 66 27 16 27", "round 65 37 90 33 92 66 62 68",
  ],
  Mushroom: [
    "round 7 54 9 32 26 10 50 10 74 10 91 32 93 54", "round 7 54 25 60 50 62 75 60 93 54",
    "round 41 61 42 78 38 93 50 95 62 93 58 78 59 61", "round 24 42 24 33 36 33 36 46 24 46 24 40",
    "round 46 27 46 20 57 20 57 31 46 31 46 25", "round 64 46 64 38 74 38 74 49 64 49 64 44",
  ],
  Bicycle: [
    "circle 24 66 19", "circle 76 66 19", "angular 24 66 37 40 66 40 47 67 24 66",
    "angular 47 67 35 31 28 31 42 31", "angular 76 66 63 26 74 22",
  ],
  Car: [
    "round 5 66 6 52 24 48 36 32 64 32 76 48 94 52 95 66", "angular 5 66 16 67", "angular 36 67 64 67",
    "angular 84 67 95 66", "circle 26 67 10", "circle 74 67 10", "angular 31 47 39 37 61 37 69 47 31 47",
    "angular 50 37 50 47",
  ],
  Cat: [
    "round 20 50 20 36 50 24 80 36 80 72 50 88 20 72 20 50", "angular 23 38 20 10 42 28",
    "angular 58 28 80 10 77 38", "round 32 50 37 45 42 50 37 55 32 50", "round 58 50 63 45 68 50 63 55 58 50",
    "angular 46 62 54 62 50 67 46 62", "round 38 72 44 76 50 67 56 76 62 72", "angular 34 66 6 60",
    "angular 34 70 6 74", "angular 66 66 94 60", "angular 66 70 94 74",
  ],
  Flower: [
    "round 42 32 46 25 54 25 58 32 54 39 46 39 42 32", "round 44 26 38 6 62 6 56 26",
    "round 57 28 76 16 82 40 58 36", "round 56 37 72 52 50 62 49 40", "round 48 40 40 62 22 50 43 37",
    "round 42 35 16 38 24 14 43 28", "round 50 58 52 74 49 95", "round 50 82 62 66 78 70 66 84 50 84",
  ],
  Aeroplane: [
    "round 4 52 10 44 30 43 80 43 95 42", "round 4 52 12 58 40 58 70 55 95 42",
    "angular 36 53 62 84 70 84 56 53", "angular 42 43 58 22 64 22 56 43", "angular 80 43 90 20 97 20 95 42",
  ],
  Chair: [
    "angular 28 8 30 56 72 56 62 44 60 8 28 8", "angular 30 56 28 94", "angular 72 56 74 94",
    "angular 36 56 38 82", "angular 62 56 64 82",
  ],
};

export const examples = () =>
  Object.entries(EXAMPLES).map(([name, strokes]) => ({ name, marks: strokes.map(toMark) }));

function circle([x, y, radius]) {
  const turns = Array.from({ length: CORNERS + 1 }, (_, i) => (2 * Math.PI * i) / CORNERS);
  return turns.map((turn) => [x - radius * Math.cos(turn), y - radius * Math.sin(turn)]);
}

function toMark(stroke) {
  const [kind, ...numbers] = stroke.split(" ");
  const values = numbers.map((number) => number / 100);
  const pairs = values.flatMap((x, i) => (i % 2 ? [] : [[x, values[i + 1]]]));
  // A point that is there twice makes a corner: the curve around it has no length.
  const places = { circle: () => circle(values), round: () => pairs, angular: () => pairs.flatMap((place) => [place, place]) }[kind]();
  return { kind: "pen", colour: INK, width: WIDTH, points: places.map(([x, y]) => ({ x, y, weight: 1 })) };
}
