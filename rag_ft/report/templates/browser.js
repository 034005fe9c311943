(function () {
  "use strict";
  var section = document.getElementById("browser");
  if (!section) { return; }
  var step = 20, shown = step;
  var bar = section.querySelector(".filters");
  var found = section.querySelector(".found");
  var more = section.querySelector(".more");
  var filters = Array.from(bar.querySelectorAll("[data-filter]"));
  var cases = Array.from(section.querySelectorAll("details.case"));

  function wanted() {
    var values = {};
    filters.forEach(function (each) { values[each.dataset.filter] = each.value.trim(); });
    return values;
  }

  function has(verdicts, system, letter) {
    return system === "" ? verdicts.indexOf(letter) >= 0 : verdicts[Number(system)] === letter;
  }

  function matches(item, values) {
    return has(item.dataset.verdicts, values.right, "r")
      && has(item.dataset.verdicts, values.wrong, "w")
      && (!values.group || item.dataset.group === values.group)
      && (!values.text || item.textContent.toLowerCase().indexOf(values.text.toLowerCase()) >= 0);
  }

  function update() {
    var values = wanted(), count = 0;
    cases.forEach(function (item) {
      var fits = matches(item, values);
      item.hidden = !fits || count >= shown;
      if (fits) { count += 1; }
    });
    found.textContent = count === 1 ? "1 question" : count + " questions";
    more.hidden = count <= shown;
  }

  filters.forEach(function (each) {
    each.addEventListener("input", function () { shown = step; update(); });
  });
  more.addEventListener("click", function () {
    var first = cases.filter(function (item) { return !item.hidden; }).length;
    shown += step;
    update();
    var visible = cases.filter(function (item) { return !item.hidden; });
    if (visible[first]) { visible[first].querySelector("summary").focus(); }
  });
  bar.hidden = false;
  update();
})();
