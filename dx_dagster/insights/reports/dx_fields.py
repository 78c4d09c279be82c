"""The fields of DX's report files. Those that say who may see a report, or how DX lays it out, change nothing here.

Sources: docs.getdx.com/webapi/types/studio-report and studio-report-tile; get-dx/cli, skills/dx-cli/references/
report-creation.md and src/commands/studio/reports.ts.
"""

REPORT_FIELDS = frozenset(
    {
        "name",
        "description",
        "tiles",
        "variables",
        "markdown_notes",
        "owner",
        "owner_email",
        "view_access_type",
        "viewer_emails",
        "edit_access_type",
        "editor_emails",
        "date_range_variables_enabled",
        "default_date_range_period",
        "sections",
        "id",
        "url",
        "created_at",
        "updated_at",
    }
)
TILE_FIELDS = frozenset(
    {
        "title",
        "sql",
        "chart_type",
        "chart_config",
        "description",
        "id",
        "section",
        "section_id",
        "section_name",
        "width",
        "height",
        "width_numerator",
        "width_denominator",
        "height_numerator",
        "height_denominator",
        "drilldown_sql",
    }
)
CONFIG_FIELDS = frozenset(
    {
        "xAxis",
        "yAxes",
        "labelColumn",
        "valueColumn",
        "groupByColumn",
        "groupingMode",
        "orientation",
        "xAxisLabel",
        "yAxisLabel",
        "showLegend",
        "showDataLabels",
        "showTrendLine",
        "showLineOverlay",
        "goalLines",
        "xAxisFormat",
        "yAxisMinValue",
        "yAxisMaxValue",
        "hideXAxisTickMarks",
        "overrideColors",
    }
)
VARIABLE_FIELDS = frozenset({"name", "label", "type", "default_values"})
