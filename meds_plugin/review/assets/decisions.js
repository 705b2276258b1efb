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
    this.others = [...this.letters]; // what another reviewer said against it, until that is settled
    this.past = [];
    this.stored = true; // false: the browser cannot store them
    this.read();
  }

  read() {
    try {
      this.letters = this.saved("") ?? this.letters;
      this.others = this.saved(".others") ?? this.others;
    } catch {
      this.stored = false;
    }
    this.write(); // finds out at once whether the browser can store
  }

  saved(suffix) {
    const text = localStorage.getItem(this.key + suffix);
    return text !== null && text.length === this.letters.length && /^[.kd]*$/.test(text) ? [...text] : null;
  }

  write() {
    if (!this.stored) return;
    try {
      localStorage.setItem(this.key + ".others", this.others.join(""));
      localStorage.setItem(this.key, this.letters.join(""));
    } catch {
      this.stored = false;
    }
  }

  // Applies triples of an index, its decision and a contrary one; they are undone together.
  set(changes, current) {
    this.past.push({ before: changes.map(([index]) => [index, this.letters[index], this.others[index]]), current });
    this.apply(changes);
  }

  // Returns the image that was current before, or -1 if there is nothing to undo.
  undo() {
    const last = this.past.pop();
    if (!last) return -1;
    this.apply(last.before);
    return last.current;
  }

  apply(changes) {
    for (const [index, letter, other] of changes) {
      this.letters[index] = letter;
      this.others[index] = other;
    }
    this.write();
  }

  count(letter) {
    return this.letters.reduce((sum, each) => sum + (each === letter), 0);
  }

  conflicts() {
    return this.others.reduce((sum, each) => sum + (each !== UNDECIDED), 0);
  }

  csv() {
    const { path, category, categories } = this.data;
    const rows = [["path", "category", "decision"]];
    this.letters.forEach((letter, index) => {
      if (letter !== UNDECIDED) rows.push([path[index], categories[category[index]], WORD[letter]]);
    });
    return csvText(rows);
  }

  // Takes over what a file decides on undecided images. Where it contradicts a decision, that one
  // stands and the other is kept beside it. Returns numbers of images; throws if the file holds no
  // decisions.
  merge(text, current) {
    const [head, ...rows] = csvRows(text);
    const columns = (head || []).map((name) => name.trim().toLowerCase());
    const at = columns.indexOf("path"), what = columns.indexOf("decision");
    if (at < 0 || what < 0) throw new Error("it has no columns path and decision");
    const place = new Map(this.data.path.map((path, index) => [path, index]));
    const theirs = new Map();
    let unknown = 0;
    for (const row of rows) {
      const word = (row[what] || "").trim().toLowerCase();
      if (!Object.hasOwn(LETTER, word)) throw new Error(`decision ${JSON.stringify(word)} is unknown`);
      const index = place.get(row[at]), letter = LETTER[word];
      if (index === undefined) unknown += 1;
      else if ((theirs.get(index) ?? letter) !== letter) throw new Error(`it has two decisions on ${visible(row[at])}`);
      else if (letter !== UNDECIDED) theirs.set(index, letter);
    }
    const added = [], contrary = [];
    for (const [index, letter] of theirs) {
      if (this.letters[index] === UNDECIDED) added.push([index, letter, UNDECIDED]);
      else if (this.letters[index] !== letter) contrary.push([index, this.letters[index], letter]);
    }
    if (added.length + contrary.length) this.set([...added, ...contrary], current);
    const agreed = theirs.size - added.length - contrary.length;
    return { added: added.length, agreed, conflicts: contrary.length, unknown };
  }
}

// The expected number of contaminated images among the undecided: the sum of their probabilities.
// Returns { sum, unknown }: null if no probability is known, and the categories without one.
function expectedContaminated(data, letters) {
  let sum = 0, known = 0;
  const unknown = new Set();
  letters.forEach((letter, index) => {
    if (letter !== UNDECIDED) return;
    const value = data.probability?.[index] ?? null;
    if (value === null) unknown.add(data.categories[data.category[index]]);
    else known += 1;
    sum += value ?? 0;
  });
  return { sum: known || !unknown.size ? sum : null, unknown: [...unknown] };
}
