// The settings of the stages: a table of all of them, and the first stage's most used.

const FIRST = ["guidance", "steps", "solver", "threshold"];
const words = (name) => name.replaceAll("_", " ");

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function choice(names) {
  return element("select", {}, ...names.map((name) => new Option(name, name)));
}

function number(setting) {
  const field = element("input", { type: "number", inputMode: "decimal" });
  field.step = setting.kind === "integer" ? "1" : "any";
  if (setting.optional) field.placeholder = "off";
  else field.required = true;
  return field;
}

const read = (field) => {
  if (field.type !== "number") return field.value;
  return field.value === "" ? null : Number(field.value);
};
const write = (field, value) => {
  field.value = value ?? "";
};

export class Settings {
  constructor(model, table, first) {
    this.model = model;
    this.cells = []; // One a stage: name -> field.
    this.numbers = []; // One a stage: the solver's own numbers, name -> field.
    this.holders = []; // One a stage: where those stand.
    this.kinds = new Map(model.settings.map((setting) => [setting.name, setting]));
    this.#table(table);
    this.#first(first);
    this.reset();
  }

  // What differs from the model's own, one object a stage, as a recipe file has it.
  changes() {
    return this.model.stages.map((stage, i) => {
      const changed = { stage: stage.name };
      for (const [name, field] of Object.entries(this.cells[i])) {
        if (name === "solver") continue;
        if (read(field) !== (stage.settings[name] ?? null)) changed[name] = read(field);
      }
      const solver = { name: this.cells[i].solver.value };
      for (const [name, field] of Object.entries(this.numbers[i])) {
        if (field.value !== "") solver[name] = Number(field.value);
      }
      const own = stage.settings.solver;
      const same = own.name === solver.name
        && Object.keys(solver).every((name) => own[name] === solver[name]);
      if (!same) changed.solver = solver;
      return changed;
    });
  }

  reset() {
    this.set([]);
  }

  // The model's own, changed by what `changes` gave.
  set(changes) {
    this.model.stages.forEach((stage, i) => {
      const said = changes.find((one) => one.stage === stage.name) ?? {};
      const values = { ...stage.settings, ...said };
      for (const [name, field] of Object.entries(this.cells[i])) {
        if (name !== "solver") write(field, values[name]);
      }
      write(this.cells[i].solver, values.solver.name);
      this.#solver(i, values.solver);
    });
    this.#mark();
  }

  #table(table) {
    const head = element("tr", {}, element("td"));
    for (const stage of this.model.stages) {
      head.append(element("th", { scope: "col", textContent: `${stage.name}` }));
      this.cells.push({});
      this.numbers.push({});
    }
    const body = element("tbody");
    for (const setting of this.model.settings) {
      const row = element("tr", {}, element("th", { scope: "row", textContent: words(setting.name) }));
      this.model.stages.forEach((stage, i) => {
        const field = setting.kind === "solver" ? choice(Object.keys(this.model.solvers))
          : setting.kind === "choice" ? choice(setting.choices)
          : number(setting);
        field.setAttribute("aria-label", `${words(setting.name)} of ${stage.name}`);
        field.dataset.stage = stage.name;
        field.dataset.setting = setting.name;
        this.cells[i][setting.name] = field;
        const cell = element("td", {}, field);
        if (setting.kind === "solver") {
          this.holders.push(element("div"));
          cell.append(this.holders[i]);
          field.addEventListener("change", () => this.#solver(i, { name: field.value }));
        }
        row.append(cell);
      });
      body.append(row);
    }
    table.replaceChildren(element("thead", {}, head), body);
    table.addEventListener("input", () => this.#mark());
  }

  // The numbers that a solver has.
  #solver(i, values) {
    this.numbers[i] = {};
    const fields = [];
    const own = this.model.stages[i].settings.solver;
    const base = own.name === values.name ? own : {};
    for (const [name, usual] of Object.entries(this.model.solvers[values.name] ?? {})) {
      const field = number({ kind: "number" });
      write(field, values[name] ?? base[name] ?? usual);
      this.numbers[i][name] = field;
      fields.push(element("label", {}, words(name), field));
    }
    this.holders[i].replaceChildren(...fields);
    this.#mark();
  }

  // The first stage's most used again, in step with the table.
  #first(place) {
    this.mirrors = [];
    for (const name of FIRST.filter((one) => this.kinds.has(one))) {
      const cell = this.cells[0][name];
      const mirror = cell.cloneNode(true);
      mirror.id = `first-${name}`;
      mirror.removeAttribute("aria-label");
      const label = element("label", { htmlFor: mirror.id, textContent: words(name)[0].toUpperCase() + words(name).slice(1) });
      const group = element("div", {}, label);
      const pass = (from) => {
        write(cell, from.value);
        cell.dispatchEvent(new Event("input", { bubbles: true }));
        if (name === "solver") cell.dispatchEvent(new Event("change"));
      };
      mirror.addEventListener("input", () => pass(mirror));
      this.mirrors.push(() => write(mirror, cell.value));
      if (name === "guidance") {
        const range = element("input", { type: "range", min: 1, max: 10, step: 0.5 });
        range.setAttribute("aria-label", "Guidance, by a slider");
        range.addEventListener("input", () => pass(range));
        this.mirrors.push(() => write(range, cell.value === "" ? 1 : cell.value));
        group.className = "ranged";
        group.append(range);
      }
      group.append(mirror);
      place.append(group);
    }
  }

  #mark() {
    this.mirrors?.forEach((mirror) => mirror());
    this.model.stages.forEach((stage, i) => {
      for (const [name, field] of Object.entries(this.cells[i])) {
        const own = name === "solver" ? stage.settings.solver.name : stage.settings[name];
        field.classList.toggle("changed", read(field) !== (own ?? null));
      }
    });
  }
}
