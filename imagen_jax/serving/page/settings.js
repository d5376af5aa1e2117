// The settings of the stages: a table of all of them, and the first stage's most used.

const FIRST = ["guidance", "steps", "threshold", "solver"];
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
  else if (setting.value === null) field.placeholder = "no bound";
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
    this.cells = model.stages.map(() => ({})); // Of each stage: name -> field.
    // Of each stage: a solver's, a grid's, ... own numbers, name -> {holder, fields}.
    this.numbers = model.stages.map(() => ({}));
    this.kinds = new Map(model.settings.map((setting) => [setting.name, setting]));
    this.#table(table);
    this.#first(first);
    this.reset();
  }

  // What differs from the model's own, one object a stage, as a recipe file has it.
  changes() {
    return this.model.stages.map((stage, i) => {
      const changed = { stage: stage.name };
      for (const name of this.kinds.keys()) {
        if (this.#differs(i, name)) changed[name] = this.#value(i, name);
      }
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
      for (const [name, { kind }] of this.kinds) {
        if (kind === "part") this.#part(i, name, values[name]);
        else write(this.cells[i][name], values[name]);
      }
    });
    this.#mark();
  }

  #value(i, name) {
    const value = read(this.cells[i][name]);
    if (this.kinds.get(name).kind !== "part") return value;
    const made = { name: value };
    for (const [key, field] of Object.entries(this.numbers[i][name].fields)) {
      // What is empty and may not be off is left to the part itself.
      if (field.value !== "" || field.placeholder === "off") made[key] = read(field);
    }
    return made;
  }

  #differs(i, name) {
    const own = this.model.stages[i].settings[name] ?? null;
    const value = this.#value(i, name);
    if (this.kinds.get(name).kind !== "part") return value !== own;
    return Object.entries(value).some(([key, one]) => one !== (own[key] ?? null));
  }

  #table(table) {
    const head = element("tr", {}, element("td"));
    for (const { name } of this.model.stages) {
      head.append(element("th", { scope: "col", textContent: name }));
    }
    const body = element("tbody");
    for (const setting of this.model.settings) {
      const title = element("th", { scope: "row", textContent: words(setting.name) });
      const cells = this.model.stages.map((_, i) => this.#cell(i, setting));
      body.append(element("tr", {}, title, ...cells));
    }
    table.replaceChildren(element("thead", {}, head), body);
    table.addEventListener("input", () => this.#mark());
  }

  #cell(i, setting) {
    const { name, kind } = setting;
    const field = kind === "part" ? choice(Object.keys(setting.parts))
      : kind === "choice" ? choice(setting.choices)
      : number(setting);
    field.setAttribute("aria-label", `${words(name)} of ${this.model.stages[i].name}`);
    this.cells[i][name] = field;
    const cell = element("td", {}, field);
    if (kind === "part") {
      const holder = element("div");
      this.numbers[i][name] = { holder, fields: {} };
      cell.append(holder);
      field.addEventListener("change", () => {
        this.#part(i, name, { name: field.value });
        this.#mark();
      });
    }
    return cell;
  }

  // A solver, a grid, ...: its name, and the numbers that it has.
  #part(i, name, values) {
    const own = this.model.stages[i].settings[name];
    const known = own.name === values.name ? { ...own, ...values } : values;
    const part = this.numbers[i][name];
    part.fields = {};
    write(this.cells[i][name], values.name);
    const fields = (this.kinds.get(name).parts[values.name] ?? []).map((setting) => {
      const field = number(setting);
      const given = known[setting.name];
      write(field, given === undefined ? setting.value : given);
      part.fields[setting.name] = field;
      return element("label", {}, words(setting.name), field);
    });
    part.holder.replaceChildren(...fields);
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
        cell.dispatchEvent(new Event("change"));
      };
      mirror.addEventListener("input", () => pass(mirror));
      this.mirrors.push(() => write(mirror, cell.value));
      if (name === "solver") group.className = "wide";
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
    this.cells.forEach((cells, i) => {
      for (const [name, field] of Object.entries(cells)) {
        field.classList.toggle("changed", this.#differs(i, name));
      }
    });
  }
}
