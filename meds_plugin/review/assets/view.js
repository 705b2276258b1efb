// Which images are shown, in which order, and where the selection's threshold falls among them.

const ORDERS = {
  score: { name: "most suspicious first", by: (facts) => (index) => -facts.score[index] },
  calm: { name: "least suspicious first", by: (facts) => (index) => facts.score[index] },
  probability: {
    name: "most probable defect first",
    by: (facts) => (index) => -(facts.probability[index] ?? -1),
    there: (facts) => facts.probability.some((value) => value !== null),
  },
  memory: {
    name: "by the memory's score",
    by: (facts) => (index) => -facts.memory[index],
    there: (facts) => facts.memory[0] !== null && facts.memory.length > 0,
  },
  name: { name: "by file name" },
};

function shownImages(facts, letters, { category, decision, order }) {
  const indices = [];
  facts.path.forEach((_, index) => {
    if (category >= 0 && facts.category[index] !== category) return;
    if (decision !== "all" && WORD[letters[index]] !== decision) return;
    indices.push(index);
  });
  if (order === "name") {
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    return indices.sort((one, two) => compare(facts.path[one], facts.path[two]));
  }
  const key = ORDERS[order].by(facts);
  return indices.sort((one, two) => key(one) - key(two) || (order === "calm" ? two - one : one - two));
}

// Returns { at, text }: the line lies before this place; null where it cannot be drawn.
function thresholdLine(facts, indices, { category, order }) {
  const only = facts.categories.length === 1 ? 0 : category;
  if (only < 0 || (order !== "score" && order !== "calm") || !indices.length) return null;
  const threshold = facts.thresholds[only];
  if (threshold === null || threshold === undefined) return null;
  const first = order === "score" ? 1 : 0;
  let at = indices.findIndex((index) => facts.selected[index] === first);
  if (at < 0) at = indices.length;
  const members = facts.category.reduce((sum, each) => sum + (each === only), 0);
  const kept = facts.selected.reduce((sum, each, index) => sum + (each && facts.category[index] === only), 0);
  const sides = [`${members - kept} left out`, `${kept} trained on`];
  if (order === "calm") sides.reverse();
  return { at, text: `selection threshold ${figure(threshold)} \u2014 ${sides[0]} above, ${sides[1]} below` };
}

function figure(value, digits = 4) {
  if (value === null || value === undefined) return "\u2013";
  return value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : String(+value.toPrecision(digits));
}

// Names may hold what would break a line or turn the direction of writing.
function visible(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (letter) =>
    "\\u" + letter.charCodeAt(0).toString(16).padStart(4, "0"));
}
