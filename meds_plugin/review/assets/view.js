// Which images are shown, in which order, and where the selection threshold falls among them.

const ORDERS = {
  descending: { name: "most suspicious first", by: (data) => (index) => -data.score[index] },
  ascending: { name: "least suspicious first", by: (data) => (index) => data.score[index] },
  probability: {
    name: "highest contamination probability first",
    by: (data) => (index) => -(data.probability[index] ?? -1),
    available: (data) => data.probability.some((value) => value !== null),
  },
  memory: {
    name: "highest memory score first",
    by: (data) => (index) => -data.memory[index],
    available: (data) => data.memory[0] !== null && data.memory.length > 0,
  },
  name: { name: "by file name" },
};

function shownImages(data, letters, { category, decision, order }) {
  const indices = [];
  data.path.forEach((_, index) => {
    if (category >= 0 && data.category[index] !== category) return;
    if (decision !== "all" && WORD[letters[index]] !== decision) return;
    indices.push(index);
  });
  if (order === "name") {
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    return indices.sort((one, two) => compare(data.path[one], data.path[two]));
  }
  const key = ORDERS[order].by(data);
  return indices.sort((one, two) => key(one) - key(two) || (order === "ascending" ? two - one : one - two));
}

// Returns { at, text }: the line comes before this place; null if the view has no single threshold.
function thresholdLine(data, indices, { category, order }) {
  const only = data.categories.length === 1 ? 0 : category;
  if (only < 0 || (order !== "descending" && order !== "ascending") || !indices.length) return null;
  const threshold = data.thresholds[only];
  if (threshold === null || threshold === undefined) return null;
  const first = order === "descending" ? 1 : 0;
  let at = indices.findIndex((index) => data.selected[index] === first);
  if (at < 0) at = indices.length;
  const members = data.category.reduce((sum, each) => sum + (each === only), 0);
  const selected = data.selected.reduce((sum, each, index) => sum + (each && data.category[index] === only), 0);
  const sides = [`${members - selected} not selected`, `${selected} selected`];
  if (order === "ascending") sides.reverse();
  return { at, text: `selection threshold ${formatNumber(threshold)} \u2014 ${sides[0]} above, ${sides[1]} below` };
}

function formatNumber(value, digits = 4) {
  if (value === null || value === undefined) return "\u2013";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  const text = value.toPrecision(digits);
  return text.includes("e") ? String(+text) : text;
}

// Escapes characters that would break a line or reverse the writing direction.
function visible(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (letter) =>
    "\\u" + letter.charCodeAt(0).toString(16).padStart(4, "0"));
}
