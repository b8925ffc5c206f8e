// Enhancements only: the page is whole without this. No input reaches markup; only classes,
// `hidden` and text are set.
(function () {
  "use strict";
  var byId = function (id) { return document.getElementById(id); };
  var all = function (query, root) { return Array.from((root || document).querySelectorAll(query)); };

  var written = new Date(document.lastModified);
  if (!isNaN(written)) byId("dated").textContent = " · file of " + written.toISOString().slice(0, 10);

  // Filter: rows, figures, heads and findings whose words hold the text.
  var items = all(".item");
  byId("tools").hidden = items.length < 2;
  byId("filter").addEventListener("input", function (event) {
    var wanted = event.target.value.trim().toLowerCase();
    var left = 0;
    items.forEach(function (item) {
      var fits = !wanted || item.dataset.text.toLowerCase().includes(wanted);
      item.classList.toggle("off", !fits);
      left += fits;
      var fold = wanted && fits && item.closest("details:not(.item)");
      if (fold) fold.open = true;
    });
    byId("filtered").textContent = wanted ? left + " of " + items.length : "";
  });

  // Dim picker: one dim of every head next to each other.
  var dims = all("figure.dim");
  var names = Array.from(new Set(dims.map(function (dim) { return dim.dataset.dim; })));
  if (byId("picker") && names.length > 1) {
    byId("picker").hidden = false;
    names.forEach(function (name) {
      var option = document.createElement("option");
      option.value = option.textContent = name;
      byId("dim").appendChild(option);
    });
    byId("dim").addEventListener("change", function (event) {
      var wanted = event.target.value;
      dims.forEach(function (dim) { dim.classList.toggle("off", wanted && dim.dataset.dim !== wanted); });
      if (wanted) all("details.head").forEach(function (head) { head.open = true; });
    });
  }

  // Heat map: a click on a row opens that head.
  var heads = all("details.head");
  all(".heat").forEach(function (map) {
    map.classList.add("clickable");
    map.addEventListener("click", function (event) {
      var box = map.getBoundingClientRect();
      var view = map.viewBox.baseVal;
      var y = (event.clientY - box.top) / box.height * view.height;
      var row = Math.floor((y - 16) / ((view.height - 20) / heads.length));
      if (heads[row]) {
        heads[row].open = true;
        heads[row].scrollIntoView();
      }
    });
  });

  // Tables: a click on a heading sorts by that column.
  all("table.sortable").forEach(function (table) {
    all("thead th", table).forEach(function (head, column) {
      head.tabIndex = 0;
      head.setAttribute("role", "button");
      var sort = function () {
        var down = head.getAttribute("aria-sort") === "ascending";
        all("thead th", table).forEach(function (other) { other.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        var value = function (row) {
          var text = row.cells[column].textContent.trim();
          var number = parseFloat(text.replace(/,/g, ""));
          return head.classList.contains("n") && !isNaN(number) ? number : text.toLowerCase();
        };
        var rows = all("tbody tr", table);
        rows.sort(function (a, b) {
          var x = value(a), y = value(b);
          var order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1;
          return down ? -order : order;
        });
        rows.forEach(function (row) { row.parentNode.appendChild(row); });
      };
      head.addEventListener("click", sort);
      head.addEventListener("keydown", function (event) { if (event.key === "Enter") sort(); });
    });
  });
})();
