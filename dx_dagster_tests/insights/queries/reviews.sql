-- Who reviews, how fast, and with what outcome.

-- ## Review load by person
-- Ann: #2, #5 and #7. Bob: #1, #2 (his change request, with the comment before it) and #8. Cy: #4 and #10.
-- = Ann | 3 | 3
-- = Bob | 3 | 3
-- = Cy | 2 | 2
SELECT u.name, count(*) AS reviews, count(DISTINCT v.pull_request_id) AS pull_requests
FROM pull_request_reviews v JOIN dx_users u ON u.id = v.dx_user_id
WHERE NOT v.bot_authored
GROUP BY u.name ORDER BY reviews DESC, u.name;

-- ## Outcomes of reviews
-- = APPROVED | 6
-- = COMMENTED | 1
-- = DECLINED | 1
SELECT review_type, count(*) AS reviews FROM pull_request_reviews
WHERE NOT bot_authored GROUP BY review_type ORDER BY reviews DESC, review_type;

-- ## How fast people answer
-- From ready for review to the review. Ann: #2 26 h, #5 0.5, #7 6. Bob: #1 2 h, #2 6, #8 0.5. Cy: #4 24 h, #10 1.
-- = Bob | 2.8
-- = Ann | 10.8
-- = Cy | 12.5
SELECT u.name, round((avg(v.time_since_request) / 3600)::numeric, 1) AS average_hours
FROM pull_request_reviews v JOIN dx_users u ON u.id = v.dx_user_id
WHERE NOT v.bot_authored
GROUP BY u.name ORDER BY average_hours;

-- ## How fast people answer, in their business hours
-- Ann: #2 10 h on Tuesday and 2 on Wednesday, #5 0.5, #7 6. Bob: 2, 6 and 0.5. Cy: #4 8 h on Thursday and 2 on Friday, #10 1.
-- = Bob | 2.8
-- = Cy | 5.5
-- = Ann | 6.2
SELECT u.name, round((avg(v.time_since_request_business_hours) / 3600)::numeric, 1) AS average_hours
FROM pull_request_reviews v JOIN dx_users u ON u.id = v.dx_user_id
WHERE NOT v.bot_authored
GROUP BY u.name ORDER BY average_hours;

-- ## Re-review rate
-- Merged pull requests with a change request and a later review, of those with a review: #2, of #1, #2, #4, #8 and #10.
-- = 1 | 5 | 20.0
WITH reviewed AS (
    SELECT p.id, bool_or(asked.id IS NOT NULL) AS again
    FROM pull_requests p
    JOIN pull_request_reviews v ON v.pull_request_id = p.id AND NOT v.bot_authored
    LEFT JOIN pull_request_reviews asked
        ON asked.pull_request_id = p.id AND asked.review_type = 'DECLINED' AND asked.created < v.created
    WHERE p.merged IS NOT NULL AND NOT p.bot_authored
    GROUP BY p.id
)
SELECT count(*) FILTER (WHERE again) AS reviewed_again, count(*) AS reviewed,
       round(100.0 * count(*) FILTER (WHERE again) / count(*), 1) AS percent
FROM reviewed;

-- ## Comments per review, by repository
-- api: three reviews, one comment (#7). web: five reviews, one comment (#2).
-- = api | 3 | 0.33
-- = web | 5 | 0.20
SELECT r.name, count(*) AS reviews, round(avg(v.comment_count), 2) AS comments
FROM pull_request_reviews v JOIN repos r ON r.id = v.repo_id
WHERE NOT v.bot_authored
GROUP BY r.name ORDER BY r.name;

-- ## Which team reviews whose work
-- Platform's #7 and #10 were reviewed by Ann and Cy of Web. Bob of Platform reviewed Web's #1, #2 and #8; Ann #2, Cy #4.
-- = Platform | Web | 2
-- = Web | Platform | 3
-- = Web | Web | 2
SELECT authors.name AS author_team, reviewers.name AS reviewer_team, count(*) AS reviews
FROM pull_request_reviews v
JOIN pull_requests p ON p.id = v.pull_request_id
JOIN dx_users a ON a.id = p.dx_user_id JOIN dx_teams authors ON authors.id = a.team_id
JOIN dx_users u ON u.id = v.dx_user_id JOIN dx_teams reviewers ON reviewers.id = u.team_id
GROUP BY author_team, reviewer_team ORDER BY author_team, reviewer_team;

-- ## Pairs that review each other most
-- Bob reviewed Ann's #1, and her #8, which she opened with her other account.
-- = Ann | Bob | 2
SELECT a.name AS author, u.name AS reviewer, count(DISTINCT p.id) AS pull_requests
FROM pull_request_reviews v
JOIN pull_requests p ON p.id = v.pull_request_id
JOIN dx_users a ON a.id = p.dx_user_id JOIN dx_users u ON u.id = v.dx_user_id
GROUP BY author, reviewer HAVING count(DISTINCT p.id) > 1;

-- ## What bots review
-- The bot commented on #4.
-- = Robot | 1
SELECT u.name, count(*) AS reviews FROM pull_request_reviews v JOIN dx_users u ON u.id = v.dx_user_id
WHERE v.bot_authored GROUP BY u.name;
