// What has been decided: one letter an image, kept by the browser under the run's identity.

const UNDECIDED = ".", KEEP = "k", DROP = "d";
const WORD = { [KEEP]: "keep", [DROP]: "drop", [UNDECIDED]: "undecided" };
const LETTER = {
  keep: KEEP, drop: DROP, exclude: DROP, remove: DROP, defect: DROP, undecided: UNDECIDED, "": UNDECIDED,
};

class Decisions {
  constructor(facts) {
    this.facts = facts;
    this.key = "meds_plugin.review." + facts.id;
    this.letters = new Array(facts.path.length).fill(UNDECIDED);
    this.past = [];
    this.kept = true; // whether the browser keeps them
    this.read();
  }

  read() {
    try {
      const saved = localStorage.getItem(this.key);
      if (saved !== null && saved.length === this.letters.length && /^[.kd]*$/.test(saved)) {
        this.letters = [...saved];
      }
      localStorage.setItem(this.key, this.letters.join(""));
    } catch {
      this.kept = false;
    }
  }

  write() {
    if (!this.kept) return;
    try {
      localStorage.setItem(this.key, this.letters.join(""));
    } catch {
      this.kept = false;
    }
  }

  // Changes are pairs of an image and a letter; all are undone together.
  set(changes, current) {
    this.past.push({ before: changes.map(([index]) => [index, this.letters[index]]), current });
    for (const [index, letter] of changes) this.letters[index] = letter;
    this.write();
  }

  // Returns the image that was the current one, or -1 where there is nothing to undo.
  undo() {
    const last = this.past.pop();
    if (!last) return -1;
    for (const [index, letter] of last.before) this.letters[index] = letter;
    this.write();
    return last.current;
  }

  count(letter) {
    return this.letters.reduce((sum, each) => sum + (each === letter), 0);
  }

  csv() {
    const { path, category, categories } = this.facts;
    const rows = [["path", "category", "decision"]];
    this.letters.forEach((letter, index) => {
      if (letter !== UNDECIDED) rows.push([path[index], categories[category[index]], WORD[letter]]);
    });
    return csvText(rows);
  }

  // Returns what changed and how many names are unknown; throws where the file is of another kind.
  load(text, current) {
    const [head, ...rows] = csvRows(text);
    const columns = (head || []).map((name) => name.trim().toLowerCase());
    const at = columns.indexOf("path"), what = columns.indexOf("decision");
    if (at < 0 || what < 0) throw new Error("it needs the columns path and decision");
    const place = new Map(this.facts.path.map((path, index) => [path, index]));
    const changes = [];
    let unknown = 0;
    for (const row of rows) {
      const word = (row[what] || "").trim().toLowerCase();
      if (!(word in LETTER)) throw new Error(`the decision ${JSON.stringify(word)} is unknown`);
      const index = place.get(row[at]);
      if (index === undefined) unknown += 1;
      else changes.push([index, LETTER[word]]);
    }
    if (changes.length) this.set(changes, current);
    return { changed: changes.length, unknown };
  }
}

// What is expected to be left: the sum of the probabilities of the images nobody has decided on.
function expectedLeft(facts, letters) {
  let sum = 0, known = 0;
  const unknown = new Set();
  facts.probability.forEach((value, index) => {
    if (letters[index] !== UNDECIDED) return;
    if (value === null) unknown.add(facts.categories[facts.category[index]]);
    else known += 1;
    sum += value ?? 0;
  });
  return { sum: known || !unknown.size ? sum : null, unknown: [...unknown] };
}
