// Which images are shown, in which order, and under which headings.

const SORTS = {
  suspicion: {
    name: "suggested review order",
    by: (data) => (index) => -data.suspicion[index],
    available: (data) => data.suspicion !== null,
  },
  descending: { name: "most suspicious first", by: (data) => (index) => -data.score[index] },
  ascending: { name: "least suspicious first", by: (data) => (index) => data.score[index] },
  probability: {
    name: "highest contamination probability first",
    by: (data) => (index) => -(data.probability[index] ?? -1),
    available: (data) => data.probability !== null,
  },
  memory: {
    name: "highest memory score first",
    by: (data) => (index) => -data.memory[index],
    available: (data) => data.memory !== null,
  },
  name: { name: "by file name" },
};

// Groups: `of` returns a number by which groups are ordered, Infinity for images in none.
const GROUPS = {
  category: {
    name: "by category",
    of: (data, index) => 2 * data.category[index] + data.selected[index],
    title: (data, index) => {
      const category = data.category[index], threshold = data.thresholds[category] ?? null;
      const side = data.selected[index] ? "selected" : "not selected";
      const at = threshold === null ? "" : ` (threshold ${formatNumber(threshold)})`;
      return `${data.categories[category]} \u00b7 ${side}${at}`;
    },
    available: (data) => data.categories.length > 1,
  },
  issue: {
    name: "by issue",
    of: (data, index) => (data.issues[index] ? firstIssue(data, index) : Infinity),
    title: (data, index) => data.issueNames[firstIssue(data, index)] ?? "no issue",
    available: (data) => data.issues !== null,
  },
  defects: {
    name: "by similar defects",
    of: (data, index) => data.defects[index] ?? Infinity,
    title: (data, index) => (data.defects[index] ? `similar defects ${data.defects[index]}` : "no similar defects"),
    available: (data) => data.defects !== null,
  },
  duplicates: {
    name: "by near-duplicates",
    of: (data, index) => data.duplicates[index] ?? Infinity,
    title: (data, index) => (data.duplicates[index] === null ? "no near-duplicates" : `near-duplicates ${data.duplicates[index]}`),
    available: (data) => data.duplicates !== null,
  },
};
const ORDERS = { ...SORTS, ...GROUPS };

function issuesOf(data, index) {
  return data.issueNames.filter((_, bit) => data.issues[index] & (1 << bit));
}

function firstIssue(data, index) {
  return 31 - Math.clz32(data.issues[index] & -data.issues[index]);
}

const sorted = new Map(); // all images in an order that was asked for before

function inOrder(data, order) {
  if (!sorted.has(order)) sorted.set(order, sortImages(data, order));
  return sorted.get(order);
}

function sortImages(data, order) {
  const all = data.path.map((_, index) => index);
  if (order === "name") {
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    return all.sort((one, two) => compare(data.path[one], data.path[two]));
  }
  const by = order in GROUPS ? (index) => GROUPS[order].of(data, index) : SORTS[order].by(data);
  const keys = all.map(by), last = order === "ascending" ? -1 : 1;
  // Infinity less itself is no number.
  return all.sort((one, two) => (keys[one] === keys[two] ? 0 : keys[one] - keys[two]) || last * (one - two));
}

function matches(data, decisions, index, { category, decision, issue }) {
  if (category >= 0 && data.category[index] !== category) return false;
  if (issue === "any" ? !data.issues[index] : issue !== "all" && !(data.issues[index] & (1 << issue))) return false;
  if (decision === "conflict") return decisions.others[index] !== UNDECIDED;
  return decision === "all" || WORD[decisions.letters[index]] === decision;
}

function shownImages(data, decisions, choice) {
  return inOrder(data, choice.order).filter((index) => matches(data, decisions, index, choice));
}

// Returns { at, text } of each heading, which comes before the image at this place.
function headings(data, indices, choice) {
  if (!indices.length) return [];
  if (!(choice.order in GROUPS)) return thresholdLine(data, indices, choice);
  const { of, title } = GROUPS[choice.order], found = [];
  let before = null;
  indices.forEach((index, at) => {
    const key = of(data, index);
    if (key !== before) found.push({ at, text: visible(title(data, index)) });
    before = key;
  });
  found.forEach((heading, number) => {
    const count = (found[number + 1]?.at ?? indices.length) - heading.at;
    heading.text += ` \u00b7 ${counted(count, "image")}`;
  });
  return found;
}

// Returns the line where the selection's threshold falls, if the view has a single one.
function thresholdLine(data, indices, { category, order }) {
  const only = data.categories.length === 1 ? 0 : category;
  const threshold = data.thresholds[only] ?? null;
  if ((order !== "descending" && order !== "ascending") || threshold === null) return [];
  const first = order === "descending" ? 1 : 0;
  let at = indices.findIndex((index) => data.selected[index] === first);
  if (at < 0) at = indices.length;
  const members = data.category.reduce((sum, each) => sum + (each === only), 0);
  const selected = data.selected.reduce((sum, each, index) => sum + (each && data.category[index] === only), 0);
  const sides = [`${members - selected} not selected`, `${selected} selected`];
  if (order === "ascending") sides.reverse();
  return [{ at, text: `selection threshold ${formatNumber(threshold)} \u2014 ${sides[0]} above, ${sides[1]} below` }];
}

function formatNumber(value, digits = 4) {
  if (value === null || value === undefined) return "\u2013";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  const text = value.toPrecision(digits);
  return text.includes("e") ? String(+text) : text;
}

function counted(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

// Escapes characters that would break a line or reverse the writing direction.
function visible(text) {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, (letter) =>
    "\\u" + letter.charCodeAt(0).toString(16).padStart(4, "0"));
}
