(() => {
  const list = document.getElementById("cards");
  if (!list) return;
  const cards = [...list.children].map((element, rank) => {
    const { flags, modality, subject, series, sequence, spacing } = element.dataset;
    const side = Math.max(...spacing.split("×").map(Number));
    const names = `${subject} ${series}`.toLowerCase();
    return { element, rank, flags: flags.split(" ").filter(Boolean), modality, subject, sequence, side, names };
  });
  const control = (name) => document.getElementById(`${name}-choice`);
  const [flag, modality, name, order, outline] = ["flag", "modality", "name", "order", "outline"].map(control);
  const orders = {
    rank: (one, two) => one.rank - two.rank,
    subject: (one, two) => one.subject.localeCompare(two.subject, "en", { numeric: true }),
    sequence: (one, two) => one.sequence.localeCompare(two.sequence, "en", { numeric: true }),
    side: (one, two) => two.side - one.side,
  };
  const flagFits = (card) => {
    if (flag.value === "") return true;
    if (flag.value === "*") return card.flags.length > 0;
    return flag.value === "-" ? card.flags.length === 0 : card.flags.includes(flag.value);
  };
  const fits = (card) =>
    flagFits(card) &&
    (modality.value === "*" || card.modality === modality.value) &&
    card.names.includes(name.value.trim().toLowerCase());
  const show = () => {
    let count = 0;
    for (const card of cards) {
      card.element.hidden = !fits(card);
      count += card.element.hidden ? 0 : 1;
    }
    document.getElementById("shown").textContent = `${count} of ${cards.length} series shown`;
  };
  const arrange = () => {
    const sorted = [...cards].sort((one, two) => orders[order.value](one, two) || one.rank - two.rank);
    list.append(...sorted.map((card) => card.element));
  };
  for (const choice of [flag, modality]) choice.addEventListener("change", show);
  name.addEventListener("input", show);
  order.addEventListener("change", arrange);
  outline?.addEventListener("change", () => list.classList.toggle("bare", !outline.checked));
  document.querySelector(".controls").hidden = false;
  show();
})();
