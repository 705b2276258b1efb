// The decisions: one letter per image, stored by the browser under the ranking's identity.

const UNDECIDED = ".", KEEP = "k", DROP = "d";
const WORD = { [KEEP]: "keep", [DROP]: "drop", [UNDECIDED]: "undecided" };
const LETTER = {
  keep: KEEP, drop: DROP, exclude: DROP, remove: DROP, defect: DROP, undecided: UNDECIDED, "": UNDECIDED,
};

class Decisions {
  constructor(data) {
    this.data = data;
    this.key = "meds_plugin.review." + data.id;
    this.letters = new Array(data.path.length).fill(UNDECIDED);
    this.past = [];
    this.stored = true; // false: the browser cannot store them
    this.read();
  }

  read() {
    try {
      const saved = localStorage.getItem(this.key);
      if (saved !== null && saved.length === this.letters.length && /^[.kd]*$/.test(saved)) {
        this.letters = [...saved];
      }
    } catch {
      this.stored = false;
    }
    this.write(); // finds out at once whether the browser can store
  }

  write() {
    if (!this.stored) return;
    try {
      localStorage.setItem(this.key, this.letters.join(""));
    } catch {
      this.stored = false;
    }
  }

  // Applies pairs of an index and a letter; they are undone together.
  set(changes, current) {
    this.past.push({ before: changes.map(([index]) => [index, this.letters[index]]), current });
    for (const [index, letter] of changes) this.letters[index] = letter;
    this.write();
  }

  // Returns the image that was current before, or -1 if there is nothing to undo.
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
    const { path, category, categories } = this.data;
    const rows = [["path", "category", "decision"]];
    this.letters.forEach((letter, index) => {
      if (letter !== UNDECIDED) rows.push([path[index], categories[category[index]], WORD[letter]]);
    });
    return csvText(rows);
  }

  // Returns the number of changes and of unknown names; throws if the file holds no decisions.
  load(text, current) {
    const [head, ...rows] = csvRows(text);
    const columns = (head || []).map((name) => name.trim().toLowerCase());
    const at = columns.indexOf("path"), what = columns.indexOf("decision");
    if (at < 0 || what < 0) throw new Error("it has no columns path and decision");
    const place = new Map(this.data.path.map((path, index) => [path, index]));
    const changes = [];
    let unknown = 0;
    for (const row of rows) {
      const word = (row[what] || "").trim().toLowerCase();
      if (!(word in LETTER)) throw new Error(`decision ${JSON.stringify(word)} is unknown`);
      const index = place.get(row[at]);
      if (index === undefined) unknown += 1;
      else changes.push([index, LETTER[word]]);
    }
    if (changes.length) this.set(changes, current);
    return { changed: changes.length, unknown };
  }
}

// The expected number of contaminated images among the undecided: the sum of their probabilities.
// Returns { sum, unknown }: null if no probability is known, and the categories without one.
function expectedContaminated(data, letters) {
  let sum = 0, known = 0;
  const unknown = new Set();
  data.probability.forEach((value, index) => {
    if (letters[index] !== UNDECIDED) return;
    if (value === null) unknown.add(data.categories[data.category[index]]);
    else known += 1;
    sum += value ?? 0;
  });
  return { sum: known || !unknown.size ? sum : null, unknown: [...unknown] };
}
